package notify

import (
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
)

// fakeWebhook is a webhook that records request bodies.
type fakeWebhook struct {
	*httptest.Server

	mu       sync.Mutex
	statuses []int    // of the next responses, then 200. Guarded by mu.
	received []string // request bodies. Guarded by mu.
}

func startWebhook(t testing.TB, statuses ...int) *fakeWebhook {
	h := &fakeWebhook{statuses: statuses}
	h.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		h.mu.Lock()
		defer h.mu.Unlock()
		h.received = append(h.received, string(body))
		status := http.StatusOK
		if len(h.statuses) > 0 {
			status, h.statuses = h.statuses[0], h.statuses[1:]
		}
		w.WriteHeader(status)
	}))
	t.Cleanup(h.Close)
	return h
}

func (h *fakeWebhook) bodies() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return append([]string(nil), h.received...)
}
