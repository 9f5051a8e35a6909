package gateway

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/rgate/rgate/stats"
)

// serveLog answers with the log of requests, or with new answers as they come.
func serveLog(w http.ResponseWriter, r *http.Request, log *stats.RequestLog, done context.Context) error {
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return reportError{http.StatusBadRequest, fmt.Errorf("reading the query: %w", err)}
	}
	q, err := parseLogQuery(query)
	if err != nil {
		return reportError{http.StatusBadRequest, err}
	}
	if follow, _ := strconv.ParseBool(query.Get("follow")); follow && r.Method == http.MethodGet {
		return followLog(w, r, log, q, done)
	}
	return writeJSON(w, r, http.StatusOK, log.Report(q))
}

// parseLogQuery reads ?service=name&status=404|5xx&since=5m|time.
func parseLogQuery(query url.Values) (q stats.LogQuery, err error) {
	q.Service = query.Get("service")
	if status := query.Get("status"); status != "" {
		class, isClass := strings.CutSuffix(strings.ToLower(status), "xx")
		q.Status, err = strconv.Atoi(class)
		if most := 599; err != nil || q.Status < 1 || q.Status > most || isClass != (q.Status < 10) || !isClass && q.Status < 100 {
			return q, fmt.Errorf("reading status: %q is none: use one such as 404, or 5xx", status)
		}
	}
	if since := query.Get("since"); since != "" {
		if ago, err := caddy.ParseDuration(since); err == nil {
			q.Since = time.Now().Add(-ago)
		} else if q.Since, err = time.Parse(time.RFC3339, since); err != nil {
			return q, fmt.Errorf("reading since: %q is no time: use one such as 2026-12-31T12:00:00Z, or a duration such as 5m", since)
		}
	}
	return q, nil
}

const (
	heartbeat     = 15 * time.Second
	exitsNoticing = time.Second
)

// followLog sends answers as server-sent events, until the client leaves or the
// configuration ends.
func followLog(w http.ResponseWriter, r *http.Request, log *stats.RequestLog, q stats.LogQuery, done context.Context) error {
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
		case <-done.Done():
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
