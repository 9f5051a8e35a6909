package bandwidth

import (
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
)

// quotaHook is a webhook that keeps what it is sent.
type quotaHook struct {
	server *httptest.Server

	mu       sync.Mutex
	statuses []int    // of the next answers, then 200; guarded by mu.
	got      []string // guarded by mu.
}

func startQuotaHook(t testing.TB) *quotaHook {
	h := new(quotaHook)
	h.server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		h.mu.Lock()
		defer h.mu.Unlock()
		h.got = append(h.got, string(body))
		status := http.StatusOK
		if len(h.statuses) > 0 {
			status, h.statuses = h.statuses[0], h.statuses[1:]
		}
		w.WriteHeader(status)
	}))
	t.Cleanup(h.server.Close)
	return h
}

func (h *quotaHook) url() string { return h.server.URL }

func (h *quotaHook) answer(statuses ...int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.statuses = statuses
}

func (h *quotaHook) bodies() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return append([]string(nil), h.got...)
}
