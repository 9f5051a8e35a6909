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

// servedLog is a log of requests that may be read. The zero value is none.
type servedLog struct {
	*stats.RequestLog
	done context.Context // when it must not be followed any longer

	// Parameters of the query that are somebody else's.
	others []string
}

// serve answers with the log, or with new answers as they come.
func (log *servedLog) serve(w http.ResponseWriter, r *http.Request) error {
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return reportError{http.StatusBadRequest, fmt.Errorf("reading the query: %w", err)}
	}
	for _, name := range log.others {
		query.Del(name)
	}
	q, follow, err := parseLogQuery(query)
	if err != nil {
		return reportError{http.StatusBadRequest, err}
	}
	if follow && r.Method == http.MethodGet {
		return log.follow(w, r, q)
	}
	return writeJSON(w, r, http.StatusOK, log.Report(q))
}

var logParameters = []string{"service", "status", "since", "follow"}

// parseLogQuery reads ?service=name&status=404|5xx&since=5m|time&follow=1.
func parseLogQuery(query url.Values) (q stats.LogQuery, follow bool, err error) {
	for _, name := range slices.Sorted(maps.Keys(query)) {
		if !slices.Contains(logParameters, name) {
			return q, false, fmt.Errorf("there is no parameter %q%s: use service, status, since or follow", name, options.Suggest(name, logParameters))
		}
	}
	if query.Has("follow") {
		switch value := query.Get("follow"); value {
		case "1", "true":
			follow = true
		case "0", "false":
		default:
			return q, false, fmt.Errorf("reading follow: %q is neither yes nor no: use 1 or 0", value)
		}
	}
	q.Service = query.Get("service")
	if status := query.Get("status"); status != "" {
		class, isClass := strings.CutSuffix(strings.ToLower(status), "xx")
		q.Status, err = strconv.Atoi(class)
		if most := 599; err != nil || q.Status < 1 || q.Status > most || isClass != (q.Status < 10) || !isClass && q.Status < 100 {
			return q, false, fmt.Errorf("reading status: %q is none: use one such as 404, or 5xx", status)
		}
	}
	if since := query.Get("since"); since != "" {
		if ago, err := caddy.ParseDuration(since); err == nil {
			q.Since = time.Now().Add(-ago)
		} else if q.Since, err = time.Parse(time.RFC3339, since); err != nil {
			return q, false, fmt.Errorf("reading since: %q is no time: use one such as 2026-12-31T12:00:00Z, or a duration such as 5m", since)
		}
	}
	return q, follow, nil
}

const (
	heartbeat     = 15 * time.Second
	exitsNoticing = time.Second
)

// follow sends answers as server-sent events, until the client leaves or the
// configuration ends.
func (log *servedLog) follow(w http.ResponseWriter, r *http.Request, q stats.LogQuery) error {
	answers, stop := log.Follow()
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
	beat, exits := time.NewTicker(heartbeat), time.NewTicker(exitsNoticing)
	defer beat.Stop()
	defer exits.Stop()
	for err == nil {
		select {
		case <-r.Context().Done():
			return nil
		case <-log.done.Done():
			return nil
		case <-exits.C: // a server that ends waits for all requests
			if caddy.Exiting() {
				return nil
			}
		case <-beat.C:
			err = send(": still here\n\n")
		case e := <-answers:
			if q.Matches(&e) {
				encoded, _ := json.Marshal(e)
				err = send("id: %d\nevent: response\ndata: %s\n\n", e.ID, encoded)
			}
		}
	}
	return nil // the client has left
}
