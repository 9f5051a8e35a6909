package operations

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/rgate/rgate/internal/options"
	"github.com/rgate/rgate/stats"
)

// requestLog serves the request log. It is disabled without a stats.RequestLog.
type requestLog struct {
	*stats.RequestLog
	done    context.Context // ends streams
	ignored []string        // query parameters of other handlers
}

// serve responds with the log, or streams new entries.
func (log *requestLog) serve(w http.ResponseWriter, r *http.Request) error {
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return statusError{http.StatusBadRequest, fmt.Errorf("reading the query: %w", err)}
	}
	for _, name := range log.ignored {
		query.Del(name)
	}
	q, follow, err := parseLogQuery(query)
	if err != nil {
		return statusError{http.StatusBadRequest, err}
	}
	if follow && r.Method == http.MethodGet {
		return log.follow(w, r, q)
	}
	return writeJSON(w, r, http.StatusOK, log.Report(q))
}

var logParameters = []string{"service", "status", "since", "follow"}

// parseLogQuery parses ?service=name&status=404|5xx&since=5m|time&follow=1.
func parseLogQuery(query url.Values) (q stats.LogQuery, follow bool, err error) {
	for _, name := range slices.Sorted(maps.Keys(query)) {
		if !slices.Contains(logParameters, name) {
			return q, false, fmt.Errorf("unknown parameter %q%s: use service, status, since or follow", name, options.Suggest(name, logParameters))
		}
	}
	if query.Has("follow") {
		switch value := query.Get("follow"); value {
		case "1", "true":
			follow = true
		case "0", "false":
		default:
			return q, false, fmt.Errorf("invalid follow %q: must be 1 or 0", value)
		}
	}
	q.Service = query.Get("service")
	if status := query.Get("status"); status != "" {
		class, isClass := strings.CutSuffix(strings.ToLower(status), "xx")
		q.Status, err = strconv.Atoi(class)
		if maxStatus := 599; err != nil || q.Status < 1 || q.Status > maxStatus || isClass != (q.Status < 10) || !isClass && q.Status < 100 {
			return q, false, fmt.Errorf("invalid status %q: must be a status such as 404, or a class such as 5xx", status)
		}
	}
	if since := query.Get("since"); since != "" {
		if ago, err := caddy.ParseDuration(since); err == nil {
			q.Since = time.Now().Add(-ago)
		} else if q.Since, err = time.Parse(time.RFC3339, since); err != nil {
			return q, false, fmt.Errorf("invalid since %q: must be a time such as 2026-12-31T12:00:00Z, or a duration such as 5m", since)
		}
	}
	return q, follow, nil
}

const (
	heartbeatInterval = 15 * time.Second
	exitCheckInterval = time.Second
)

// follow streams new log entries as server-sent events until the client disconnects or
// the configuration is unloaded.
func (log *requestLog) follow(w http.ResponseWriter, r *http.Request, q stats.LogQuery) error {
	responses, stop := log.Follow()
	defer stop()
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(http.StatusOK)
	controller := http.NewResponseController(w)
	send := func(format string, args ...any) error {
		if _, err := fmt.Fprintf(w, format, args...); err != nil {
			return err
		}
		return controller.Flush()
	}
	err := send(": following\n\n")
	heartbeat, exitCheck := time.NewTicker(heartbeatInterval), time.NewTicker(exitCheckInterval)
	defer heartbeat.Stop()
	defer exitCheck.Stop()
	for err == nil {
		select {
		case <-r.Context().Done():
			return nil
		case <-log.done.Done():
			return nil
		case <-exitCheck.C: // a graceful shutdown waits for all requests
			if caddy.Exiting() {
				return nil
			}
		case <-heartbeat.C:
			err = send(": still here\n\n")
		case e := <-responses:
			if q.Matches(&e) {
				encoded, _ := json.Marshal(e)
				err = send("id: %d\nevent: response\ndata: %s\n\n", e.ID, encoded)
			}
		}
	}
	return nil // the client disconnected
}
