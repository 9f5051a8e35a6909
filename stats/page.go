package stats

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
)

// DefaultPath is where the statistics page is unless the configuration says otherwise.
const DefaultPath = "/stats"

// servePage answers with a report as JSON. The query's `window` (1m, 5m, 1h)
// limits it to what happened lately; `by` (route, backend; may be repeated) adds
// the figures of each, with their bytes, and `by=bandwidth` all bytes. Other keys mean
// nothing.
func servePage(rec *Recorder, w http.ResponseWriter, r *http.Request) error {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		return writeJSON(w, r, http.StatusMethodNotAllowed, pageError{"statistics can only be read; use GET or HEAD"})
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
		return q, fmt.Errorf("reading query: %w; use ?window=1m, 5m or 1h and ?by=route, backend or bandwidth", err)
	}
	switch windows := values["window"]; len(windows) {
	case 0:
	case 1:
		if q.Window, err = ParseWindow(windows[0]); err != nil {
			return q, err
		}
	default:
		return q, fmt.Errorf("reading window: it is given %d times; use it once", len(windows))
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
			return q, fmt.Errorf("reading by: figures cannot be told apart by %q; use route, backend or bandwidth", by)
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
		// An error means that the client has left: nobody is there to be told.
		_, _ = w.Write(text)
	}
	return nil
}
