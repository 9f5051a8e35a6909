package stats

import (
	"net/http"
	"strings"
	"time"
)

// LogDetails provides the gateway's details for the request log.
type LogDetails interface {
	// LogDetails returns the container of the last attempt and the reason for a failure
	// of the backend. Each is empty if unknown.
	LogDetails() (container, failure string)
}

// logRequest logs the arrival of a request.
func (s *Series) logRequest(log *RequestLog, r *http.Request) (id uint64, at time.Time) {
	e := s.entryOf(r)
	e.Time, e.Size = time.Now(), r.ContentLength
	return log.begin(&e), e.Time
}

// logResponse logs the response with the ID that logRequest returned.
func (s *Series) logResponse(log *RequestLog, id uint64, arrived time.Time, w *writer, r *http.Request, details LogDetails, status int, took time.Duration) {
	e := s.entryOf(r)
	e.ID, e.Time, e.Took = id, arrived.Add(took), took // cheaper than time.Now
	e.Status, e.Size = status, w.written
	if status == 0 {
		e.Status = http.StatusOK
	}
	if ids := w.Header()["X-Request-Id"]; len(ids) > 0 {
		e.RequestID = ids[0]
	}
	if details != nil {
		e.Container, e.Error = details.LogDetails()
	}
	log.end(&e)
}

func (s *Series) entryOf(r *http.Request) LogEntry {
	return LogEntry{
		Route: s.route, Service: s.backend, Method: shortened(r.Method), Host: shortened(r.Host),
		URL: shortened(r.RequestURI), Remote: r.RemoteAddr,
	}
}

// shortened truncates a long value for the log.
func shortened(text string) string {
	const most = 1024
	if len(text) <= most {
		return text
	}
	return strings.ToValidUTF8(text[:most], "") + "…"
}
