package stats

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
)

// DefaultPath is the default path of the statistics page.
const DefaultPath = "/stats"

// servePage serves a report as JSON. The query parameter `window` (1m, 5m or 1h) limits
// it to recent requests. `by` adds the statistics and bytes of each route or backend, or
// with `by=bandwidth` the total bytes; it can be repeated. Other parameters are ignored.
func servePage(rec *Recorder, w http.ResponseWriter, r *http.Request) error {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		return writeJSON(w, r, http.StatusMethodNotAllowed, pageError{"method not allowed: use GET or HEAD"})
	}
	query, err := parseQuery(r.URL.RawQuery)
	if err != nil {
		return writeJSON(w, r, http.StatusBadRequest, pageError{err.Error()})
	}
	return writeJSON(w, r, http.StatusOK, rec.Report(query))
}

type pageError struct {
	Error string `json:"error"`
}

func parseQuery(raw string) (q Query, err error) {
	values, err := url.ParseQuery(raw)
	if err != nil {
		return q, fmt.Errorf("invalid query: %w: use ?window=1m, 5m or 1h and ?by=route, backend or bandwidth", err)
	}
	switch windows := values["window"]; len(windows) {
	case 0:
	case 1:
		if q.Window, err = ParseWindow(windows[0]); err != nil {
			return q, err
		}
	default:
		return q, fmt.Errorf("invalid window: set %d times: set it once", len(windows))
	}
	for _, by := range values["by"] {
		switch by {
		case "route":
			q.ByRoute = true
		case "backend":
			q.ByBackend = true
		case "bandwidth":
			q.Bandwidth = true
		default:
			return q, fmt.Errorf("unknown grouping %q: use route, backend or bandwidth", by)
		}
	}
	return q, nil
}

func writeJSON(w http.ResponseWriter, r *http.Request, status int, body any) error {
	text, err := json.Marshal(body)
	if err != nil {
		return fmt.Errorf("encoding statistics: %w", err)
	}
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Length", strconv.Itoa(len(text)))
	w.WriteHeader(status)
	if r.Method != http.MethodHead {
		// An error means that the client has disconnected.
		_, _ = w.Write(text)
	}
	return nil
}
