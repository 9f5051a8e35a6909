package stats

import (
	"net/http"
	"strings"
	"time"
)

// LogDetails is what a gateway knows of a request beyond what statistics see.
type LogDetails interface {
	// LogDetails returns the container that the last attempt went to, and why the
	// backend did not answer; empty where there is nothing to tell.
	LogDetails() (container, failure string)
}

// logRequest takes a request down that has just come.
func (s *Series) logRequest(log *RequestLog, r *http.Request) (id uint64, at time.Time) {
	e := s.entryOf(r)
	e.Time, e.Size = time.Now(), r.ContentLength
	return log.begin(&e), e.Time
}

// logAnswer takes down how a request that came at some time was answered.
func (s *Series) logAnswer(log *RequestLog, id uint64, came time.Time, w *writer, r *http.Request, details LogDetails, status int, took time.Duration) {
	e := s.entryOf(r)
	e.ID, e.Time, e.Took = id, came.Add(took), took // cheaper than to ask the clock again
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

// shortened bounds what a single request can occupy in the log.
func shortened(text string) string {
	const most = 1024
	if len(text) <= most {
		return text
	}
	return strings.ToValidUTF8(text[:most], "") + "…"
}
