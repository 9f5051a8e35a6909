package scrape

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"

	"github.com/rgate/rgate/bandwidth/store"
	"github.com/rgate/rgate/internal/status"
	"github.com/rgate/rgate/internal/testkit"
)

// scraperArchive is a stateStore in memory.
type scraperArchive struct {
	mu     sync.Mutex
	held   bool
	away   error
	lost   bool // record, but return an error
	memory store.SourceState
	number int64
	since  int64
	total  map[store.Key]store.Bytes
}

func newScraperArchive() *scraperArchive {
	return &scraperArchive{held: true, total: make(map[store.Key]store.Bytes)}
}

func (a *scraperArchive) Lease(context.Context, string, time.Duration) (bool, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.held, a.away
}

func (a *scraperArchive) LoadSource(_ context.Context, _ string, since time.Time) (store.SourceState, int64, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.since == 0 && a.away == nil {
		a.since = since.Unix()
		a.memory.Since = a.since
	}
	return a.memory, a.number, a.away
}

func (a *scraperArchive) SaveSource(_ context.Context, _ string, number int64, _ time.Time, bytes map[store.Key]store.Bytes, _, now store.SourceState) (bool, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.away != nil {
		return false, a.away
	}
	if number != a.number {
		return false, nil
	}
	a.memory, a.number = now, number+1
	for key, b := range bytes {
		sum := a.total[key]
		sum.Add(b)
		a.total[key] = sum
	}
	if a.lost {
		a.lost = false
		return false, errors.New("connection reset")
	}
	return true, nil
}

func (a *scraperArchive) set(f func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	f()
}

func (a *scraperArchive) egress() int64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.total[store.Key{Service: "s", Route: "r"}].Egress
}

// scraperKong is a Kong server with one counter.
type scraperKong struct {
	*httptest.Server
	egress atomic.Int64
	broken atomic.Pointer[http.HandlerFunc]
	asked  atomic.Pointer[http.Request]
}

func newScraperKong(t *testing.T) *scraperKong {
	k := new(scraperKong)
	k.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		k.asked.Store(r)
		if broken := k.broken.Load(); broken != nil {
			(*broken)(w, r)
			return
		}
		fmt.Fprintf(w, "# TYPE kong_bandwidth counter\nkong_bandwidth{type=\"egress\",service=\"s\",route=\"r\"} %d\n", k.egress.Load())
	}))
	t.Cleanup(k.Close)
	return k
}

func (k *scraperKong) breaks(f http.HandlerFunc) {
	if f == nil {
		k.broken.Store(nil)
		return
	}
	k.broken.Store(&f)
}

// scraperOf returns a scraper. Tests trigger its scrapes.
func scraperOf(t *testing.T, source Source, a stateStore) *Scraper {
	t.Helper()
	s, err := newScraper("g", source, a, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.transport.CloseIdleConnections)
	return s
}

func TestScraperCountsEveryByteOnce(t *testing.T) {
	kong, a := newScraperKong(t), newScraperArchive()
	s := scraperOf(t, Source{Name: "kong", URL: kong.URL}, a)
	turn := func(what, status string, want int64) {
		t.Helper()
		s.turn(t.Context(), time.Now())
		if got := s.Status(); got.Status != status || a.egress() != want {
			t.Errorf("%s: got %+v and %d bytes, want %s and %d", what, got, a.egress(), status, want)
		}
	}
	kong.egress.Store(1000)
	turn("the first scrape is where counting begins", StatusUp, 0)
	kong.egress.Add(10)
	turn("then it grows", StatusUp, 10)
	kong.breaks(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) })
	kong.egress.Add(20)
	turn("it is broken", StatusDown, 10)
	kong.breaks(nil)
	turn("it is back", StatusUp, 30)
	kong.egress.Store(3)
	turn("it has restarted", StatusUp, 33)

	a.set(func() { a.away = errors.New("away") })
	kong.egress.Add(4)
	turn("the store is away", StatusDown, 33)
	a.set(func() { a.away = nil })
	turn("the store is back", StatusUp, 37)
	a.set(func() { a.lost = true })
	kong.egress.Add(5)
	turn("the store's response is lost", StatusDown, 42)
	turn("it was recorded all the same", StatusUp, 42)

	a.set(func() { a.held = false })
	turn("another gateway reads it", StatusStandby, 42)
	kong.egress.Add(6)
	other := scraperOf(t, s.Source, a)
	a.set(func() { a.held = true })
	other.turn(t.Context(), time.Now())
	if a.egress() != 48 {
		t.Errorf("the other has counted %d", a.egress())
	}
	kong.egress.Add(7)
	turn("it is this one's again", StatusUp, 55)
	kong.egress.Add(8)
	other.turn(t.Context(), time.Now()) // both hold the lease
	other.turn(t.Context(), time.Now())
	turn("the other was faster", StatusUp, 63)
	turn("nothing is counted twice", StatusUp, 63)

	restarted := scraperOf(t, s.Source, a)
	kong.egress.Add(9)
	restarted.turn(t.Context(), time.Now())
	if a.egress() != 72 {
		t.Errorf("a restart of rgate has made it %d", a.egress())
	}
}

func TestScraperRequest(t *testing.T) {
	t.Setenv("KONG_PASSWORD", "secret")
	kong, a := newScraperKong(t), newScraperArchive()
	s := scraperOf(t, Source{
		Name: "kong", URL: kong.URL + "/metrics?token=hidden",
		Headers: map[string]string{"X-Key": "{env.KONG_PASSWORD}", "Host": "kong.example"}, BasicAuth: &SourceAuth{"ann", "{env.KONG_PASSWORD}"},
	}, a)
	s.turn(t.Context(), time.Now())
	r := kong.asked.Load()
	name, password, _ := r.BasicAuth()
	if r.URL.String() != "/metrics?token=hidden" || r.Host != "kong.example" || r.Header.Get("X-Key") != "secret" || name != "ann" || password != "secret" {
		t.Errorf("it was asked for %s of %s with %v", r.URL, r.Host, r.Header)
	}
	kong.Close()
	s.turn(t.Context(), time.Now())
	if d := s.dependency(); d.Up || d.Error == "" || strings.Contains(d.Name+d.Error, "hidden") {
		t.Errorf("got %+v", d)
	}
}

func TestScraperSaysWhatIsWrong(t *testing.T) {
	kong, a := newScraperKong(t), newScraperArchive()
	done := make(chan struct{})
	t.Cleanup(func() { close(done) })
	s := scraperOf(t, Source{Name: "kong", URL: kong.URL, Timeout: caddy.Duration(50 * time.Millisecond), MaxSeries: 1}, a)
	for says, broken := range map[string]http.HandlerFunc{
		"within the timeout": func(http.ResponseWriter, *http.Request) { <-done },
		"status 401":         func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusUnauthorized) },
		"status 302": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://elsewhere.example/", http.StatusFound)
		},
		"parsing":    func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "<html>") },
		"no metrics": func(http.ResponseWriter, *http.Request) {},
		"increase max_series": func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprint(w, "kong_bandwidth{type=\"egress\",service=\"a\"} 1\nkong_bandwidth{type=\"egress\",service=\"b\"} 1\n")
		},
		"bandwidth only": scraperFlood,
	} {
		kong.breaks(broken)
		s.Timeout = caddy.Duration(50 * time.Millisecond)
		if says == "bandwidth only" {
			s.Timeout = caddy.Duration(20 * time.Second)
		}
		s.turn(t.Context(), time.Now())
		if got := s.Status(); got.Status != StatusDown || !strings.Contains(got.Error, says) {
			t.Errorf("got %+v, want an error that says %q", got, says)
		}
	}
}

// scraperFlood sends an endless response.
func scraperFlood(w http.ResponseWriter, r *http.Request) {
	block := []byte("# " + strings.Repeat("x", 64<<10) + "\n")
	for range 2 * maxScrape / len(block) {
		if _, err := w.Write(block); err != nil {
			return
		}
	}
}

func TestScraperRunsUntilItIsStopped(t *testing.T) {
	kong, a := newScraperKong(t), newScraperArchive()
	kong.egress.Store(1)
	s, err := Start("g", Source{Name: "kong", URL: kong.URL, Interval: caddy.Duration(time.Second)}, a, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	testkit.Eventually(t, "the source is up", func() bool { return s.Status().Status == StatusUp })
	if d := status.Dependencies.All(status.Process{}); len(d) != 1 || !d[0].Up {
		t.Errorf("health has %+v", d)
	}
	s.Stop()
	if d := status.Dependencies.All(status.Process{}); len(d) != 0 {
		t.Errorf("health still has %+v", d)
	}
}

func TestSourceOptions(t *testing.T) {
	for field, source := range map[string]Source{
		"sources[0].name":                {URL: "http://kong/metrics"},
		"sources[0].url":                 {Name: "kong"},
		"sources[0].url ":                {Name: "kong", URL: "kong:8001/metrics"},
		"sources[0].url  ":               {Name: "kong", URL: "http://ann:secret@kong/metrics"},
		"sources[0].interval":            {Name: "kong", URL: "http://kong/metrics", Interval: 1},
		"sources[0].timeout":             {Name: "kong", URL: "http://kong/metrics", Timeout: -1},
		"sources[0].max_series":          {Name: "kong", URL: "http://kong/metrics", MaxSeries: -1},
		"sources[0].basic_auth.username": {Name: "kong", URL: "http://kong/metrics", BasicAuth: &SourceAuth{}},
		"sources[0].headers":             {Name: "kong", URL: "http://kong/metrics", Headers: map[string]string{"X Y": "z"}},
	} {
		err := Check([]*Source{&source})
		if err == nil || err.Field() != strings.TrimSpace(field) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%+v: got %v, want an error about %s", source, err, field)
		}
	}
	right := Source{Name: "kong", URL: "{env.KONG}/metrics"}
	if err := Check([]*Source{&right}); err != nil {
		t.Error(err)
	}
	if err := Check([]*Source{&right, &right}); err == nil || err.Field() != "sources[1].name" {
		t.Errorf("two of one name: %v", err)
	}
}
