package stats

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

func TestRequestLogKeepsTheLast(t *testing.T) {
	l := newRequestLog(new(redactedParams))
	for i := 1; i <= LogSize+5; i++ {
		e := LogEntry{Service: "web"}
		l.begin(&e)
		e.Status = 200
		if i%100 == 0 {
			e.Status = 503
		}
		l.end(&e)
	}
	report := l.Report(LogQuery{})
	if len(report.Requests) != LogSize || len(report.Responses) != LogSize || len(report.Errors) != 10 {
		t.Fatalf("there are %d requests, %d responses, %d errors", len(report.Requests), len(report.Responses), len(report.Errors))
	}
	if first, last := report.Requests[0].ID, report.Requests[LogSize-1].ID; first != LogSize+5 || last != 6 {
		t.Errorf("requests go from %d to %d", first, last)
	}
}

func TestRequestLogQueries(t *testing.T) {
	l := newRequestLog(new(redactedParams))
	now := time.Now()
	for _, e := range []LogEntry{
		{Service: "a", Status: 200, Time: now.Add(-time.Hour)}, {Service: "a", Status: 404, Time: now},
		{Service: "b", Status: 503, Time: now}, {Service: "b", Status: 500, Time: now},
	} {
		response := e
		e.Status = 0
		response.ID = l.begin(&e)
		l.end(&response)
	}
	for _, tc := range []struct {
		q    LogQuery
		want int
	}{
		{LogQuery{}, 4},
		{LogQuery{Service: "a"}, 2},
		{LogQuery{Status: 404}, 1},
		{LogQuery{Status: 5}, 2},
		{LogQuery{Since: now.Add(-time.Minute)}, 3},
		{LogQuery{Service: "b", Status: 2}, 0},
	} {
		got := l.Report(tc.q)
		if len(got.Responses) != tc.want {
			t.Errorf("%+v: %v", tc.q, got.Responses)
		}
		ids := func(list []LogEntry) (ids []uint64) {
			for _, e := range list {
				ids = append(ids, e.ID)
			}
			return ids
		}
		if requests, responses := ids(got.Requests), ids(got.Responses); !slices.Equal(requests, responses) {
			t.Errorf("%+v: requests %v with responses %v", tc.q, requests, responses)
		}
	}
}

func TestFollowersThatKeepUpMissNothing(t *testing.T) {
	l := newRequestLog(new(redactedParams))
	responses, stop := l.Follow()
	slow, stopSlow := l.Follow()
	for i := range 1000 {
		l.end(&LogEntry{ID: uint64(i), Status: 200, URL: "/?token=x"})
		if e := <-responses; e.ID != uint64(i) || e.URL != "/?token=REDACTED" {
			t.Fatalf("got %+v", e)
		}
	}
	if len(slow) != cap(slow) {
		t.Errorf("the follower that does not read has %d of %d", len(slow), cap(slow))
	}
	stop()
	stop()
	stopSlow()
	if n := l.following.Load(); n != 0 {
		t.Errorf("%d follow", n)
	}
}

func TestRequestLogConcurrently(t *testing.T) {
	l := newRequestLog(new(redactedParams))
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 2000 {
				e := LogEntry{Service: "a"}
				l.begin(&e)
				e.Status = 500
				l.end(&e)
			}
		})
	}
	for range 20 {
		l.Report(LogQuery{})
	}
	wg.Wait()
	if n := len(l.Report(LogQuery{}).Errors); n != LogSize {
		t.Errorf("%d errors are kept", n)
	}
}

// TestServeLogs checks that requests are logged with all details while the log has a
// holder.
func TestServeLogs(t *testing.T) {
	rec := NewRecorder(t.Name())
	s := rec.Series("/api", "web")
	serve := func() {
		r := httptest.NewRequest(http.MethodPost, "http://example.com/api/1?token=x", strings.NewReader("12345"))
		r.RequestURI = "/api/1?token=x&" + strings.Repeat("y", 5000)
		w := httptest.NewRecorder()
		err := s.Serve(w, r, caddyhttp.HandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
			w.Header().Set("X-Request-ID", "id-1")
			w.WriteHeader(http.StatusTeapot)
			fmt.Fprint(w, "short and stout")
			return nil
		}), nil)
		if err != nil {
			t.Fatal(err)
		}
	}
	serve() // the log has no holder
	l := rec.holdLog()
	serve()
	report := l.Report(LogQuery{})
	if len(report.Requests) != 1 || len(report.Responses) != 1 || len(report.Errors) != 1 {
		t.Fatalf("got %+v", report)
	}
	request, response := report.Requests[0], report.Responses[0]
	if request.Size != 5 || request.Route != "/api" || request.Service != "web" || request.Host != "example.com" || len(request.URL) > 1100 || !strings.HasPrefix(request.URL, "/api/1?token=REDACTED&yy") {
		t.Errorf("the request is %+v", request)
	}
	if response.ID != request.ID || response.Size != 15 || response.Status != http.StatusTeapot || response.RequestID != "id-1" || response.Took <= 0 {
		t.Errorf("the response is %+v", response)
	}
	encoded, _ := json.Marshal(response)
	if !strings.Contains(string(encoded), `"took_ms":`) || strings.Contains(string(encoded), "token=x") {
		t.Errorf("in JSON it is %s", encoded)
	}
	rec.releaseLog()
	if rec.log.Load() != nil {
		t.Error("there is a log without a holder")
	}
}

func BenchmarkServeLogged(b *testing.B) {
	rec := NewRecorder(b.Name())
	s := rec.Series("/api", "web")
	rec.holdLog()
	r := httptest.NewRequest(http.MethodGet, "http://example.com/api/1", nil)
	w := httptest.NewRecorder()
	next := caddyhttp.HandlerFunc(func(w http.ResponseWriter, r *http.Request) error { w.WriteHeader(http.StatusOK); return nil })
	b.ReportAllocs()
	for b.Loop() {
		if err := s.Serve(w, r, next, nil); err != nil {
			b.Fatal(err)
		}
	}
}
