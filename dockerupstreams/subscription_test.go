package dockerupstreams

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/rgate/rgate/dockerupstreams/dockertest"
	"github.com/rgate/rgate/internal/testkit"
)

func TestBadLabelShutsOutItsContainerAloneAndIsLoggedOnce(t *testing.T) {
	e := dockertest.New(t)
	e.Run(web("good"))
	bad := web("bad")
	bad.Labels = map[string]string{"app": "web", "rgate.port": "http"}
	id := e.Run(bad)
	s, logs := follow(t, Selector{}, e)
	set := expect(t, s, "good")
	want := `invalid label rgate.port="http": must be a whole number from 1 to 65535`
	if len(set.Rejected) != 1 || set.Rejected[0].Reason != want || set.Rejected[0].ID != id {
		t.Errorf("rejected: %+v, want bad with %q", set.Rejected, want)
	}

	// Lists, health changes and reloads do not log the rejection again.
	next, nextLogs := follow(t, Selector{}, e)
	e.SetHealth(id, "unhealthy")
	e.SetHealth(id, "healthy")
	before := syncs(s)
	s.Refresh()
	testkit.Eventually(t, "all containers were listed again", func() bool { return syncs(s) > before })
	e.Run(web("more"))
	expect(t, next, "good", "more")

	lines := append(logs.FilterMessage("container rejected").All(), nextLogs.FilterMessage("container rejected").All()...)
	if len(lines) != 1 {
		t.Fatalf("logged %d times, want once", len(lines))
	}
	fields := lines[0].ContextMap()
	for key, want := range map[string]string{
		"container": "bad", "id": id, "label": "rgate.port", "value": "http", "reason": want, "selector": "app=web",
	} {
		if fields[key] != want {
			t.Errorf("field %s is %q, want %q", key, fields[key], want)
		}
	}

	// A new container with the same fault is logged.
	e.Die(id)
	testkit.Eventually(t, "bad is gone", func() bool { return len(next.Set().Rejected) == 0 })
	e.StartAgain(id)
	testkit.Eventually(t, "the new one is logged", func() bool { return nextLogs.FilterMessage("container rejected").Len() == 1 })
}

func TestSubscriptionsShareOneConnection(t *testing.T) {
	e := dockertest.New(t)
	e.Run(web("a"))
	first, _ := follow(t, Selector{}, e)
	expect(t, first, "a")
	var many []*Subscription
	for i := range 50 {
		s, _ := follow(t, Selector{MatchLabels: map[string]string{"app": "web"}, Port: 1000 + i%5}, e)
		many = append(many, s)
		// The containers are known immediately, so that a new configuration starts with
		// them.
		if names := namesOf(s.Set()); !s.Set().Synced || !slices.Equal(names, []string{"a"}) {
			t.Fatalf("subscription %d starts with %v (%v), want a", i, names, s.Set().Synced)
		}
	}
	// A reload: the new subscription starts before the old one is closed, and the
	// connection is kept.
	next, _ := follow(t, Selector{}, e)
	if err := first.Close(); err != nil {
		t.Error(err)
	}
	if err := first.Close(); err != nil { // a second Close must not release the watcher of other subscriptions
		t.Error(err)
	}
	for _, s := range many {
		_ = s.Close()
	}
	e.Run(web("b"))
	expect(t, next, "a", "b")
	if counts := e.Counts(); counts.Streams != 1 || counts.Lists != 1 {
		t.Errorf("%d streams and %d whole lists, want one of each", counts.Streams, counts.Lists)
	}
	if views := len(next.parts[0].watcher.views); views != 1 {
		t.Errorf("%d views are left, want one", views)
	}
	_ = next.Close()
	testkit.Eventually(t, "the stream ended with its last subscription", func() bool { return e.Streaming() == 0 })
	if names := namesOf(next.Set()); !slices.Equal(names, []string{"a", "b"}) {
		t.Errorf("after Close, the set is %v, want the last one", names)
	}
}

func TestOneEndpointFailingKeepsTheOthers(t *testing.T) {
	one, two := dockertest.New(t), dockertest.New(t)
	one.Run(web("b"))
	two.Run(web("a"))
	c := two.Run(dockertest.Container{Name: "c", Labels: map[string]string{"app": "web"}})
	s, _ := follow(t, Selector{}, one, two)
	set := expect(t, s, "a", "b")
	if len(set.Rejected) != 1 || set.Rejected[0].ID != c {
		t.Errorf("rejected: %+v, want c", set.Rejected)
	}
	two.Stop()
	one.Run(web("d"))
	set = expect(t, s, "a", "b", "d")
	two.Run(web("e"))
	two.Start(t)
	if later := expect(t, s, "a", "b", "d", "e"); later.Generation <= set.Generation {
		t.Errorf("generation went from %d to %d, want it to grow", set.Generation, later.Generation)
	}

	// Duplicate endpoints are merged.
	twice, _ := follow(t, Selector{}, one, one)
	expect(t, twice, "b", "d")
}

func TestEndpointAbsentFromTheStartKeepsTheOthers(t *testing.T) {
	one, never := dockertest.New(t), dockertest.NewStopped(t)
	one.Run(web("a"))
	s, _ := follow(t, Selector{}, one, never)
	testkit.Eventually(t, "the one that is there is known", func() bool { return slices.Equal(namesOf(s.Set()), []string{"a"}) })
	if s.Set().Synced {
		t.Error("the set is synced, though one endpoint was never seen")
	}
}

func TestConcurrentReadersAndChanges(t *testing.T) {
	one, two := dockertest.New(t), dockertest.New(t)
	s, _ := follow(t, Selector{}, one, two)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				set := s.Set()
				for _, u := range Upstreams(set.Targets) {
					if set.ByDial(u.Dial) == nil {
						t.Errorf("%s is in the set and is not found", u.Dial)
					}
				}
				if !slices.IsSortedFunc(set.Targets, compareTargets) {
					t.Error("the set is not sorted")
				}
				s.Refresh()
			}
		})
	}
	for i := range 100 {
		id := one.Run(web(fmt.Sprintf("a%03d", i)))
		two.Run(web(fmt.Sprintf("b%03d", i)))
		if i%2 == 0 {
			one.Die(id)
		}
	}
	testkit.Eventually(t, "all are there", func() bool { return len(s.Set().Targets) == 150 })
	close(stop)
	wg.Wait()
}

func TestInvalidConfigurations(t *testing.T) {
	t.Setenv("EMPTY", "")
	labels := map[string]string{"app": "web"}
	folder := t.TempDir()
	for name, c := range map[string]struct {
		endpoint Endpoint
		sel      Selector
		want     string
	}{
		"selector":     {sel: Selector{}, want: "match_labels is required"},
		"host":         {endpoint: Endpoint{Host: "docker"}, sel: Selector{MatchLabels: labels}, want: `invalid docker host "docker"`},
		"certificates": {endpoint: Endpoint{Host: "tcp://h:2376", CertPath: folder}, sel: Selector{MatchLabels: labels}, want: "must be the directory of ca.pem"},
		"placeholder":  {sel: Selector{MatchLabels: map[string]string{"app": "{env.EMPTY}"}}, want: `match_labels app "{env.EMPTY}" is empty`},
		"socket path":  {endpoint: Endpoint{Host: "unix:///" + strings.Repeat("x", 200)}, sel: Selector{MatchLabels: labels}, want: "too long"},
	} {
		s, err := Subscribe([]Endpoint{c.endpoint}, c.sel, nil)
		if err == nil {
			_ = s.Close()
		}
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
	if left := len(followed()); left != 0 {
		t.Errorf("%d watchers are left of invalid configurations", left)
	}
}

func TestPlaceholders(t *testing.T) {
	e := dockertest.New(t)
	e.Run(web("a"))
	t.Setenv("APP", "web")
	t.Setenv("ENGINE", e.Host())
	s, err := Subscribe([]Endpoint{{Host: "{env.ENGINE}"}}, Selector{MatchLabels: map[string]string{"app": "{env.APP}"}}, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	expect(t, s, "a")
}

func TestErrorsNameTheRemedy(t *testing.T) {
	e := dockertest.New(t)
	e.Fail(dockertest.Faults{Refuse: map[string]int{"/containers/json": http.StatusForbidden}})
	_, logs := follow(t, Selector{}, e)
	warned := func(logs *observer.ObservedLogs, want string) func() bool {
		return func() bool {
			for _, line := range logs.FilterLevelExact(zapcore.WarnLevel).All() {
				if text, _ := line.ContextMap()["error"].(string); strings.Contains(text, want) {
					return true
				}
			}
			return false
		}
	}
	testkit.Eventually(t, "the log says what to allow", warned(logs, "let the socket proxy pass GET on /_ping, /events and /containers/json"))

	locked := dockertest.New(t)
	path := strings.TrimPrefix(locked.Host(), "unix://")
	if err := os.Chmod(filepath.Dir(path), 0); err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() == 0 {
		t.Log("root may read every socket: the other half was not tested")
		return
	}
	_, logs = follow(t, Selector{}, locked)
	testkit.Eventually(t, "the log says whom to let in", warned(logs, "let the gateway's user read and write the socket"))
}

func TestEnginesOverTCP(t *testing.T) {
	e := dockertest.New(t)
	e.Run(web("a"))
	host := web("h")
	host.NetworkMode, host.Networks, host.Ports = "host", nil, nil
	host.Labels = map[string]string{"app": "web", "rgate.port": "81"}
	e.Run(host)
	server := httptest.NewServer(relay(e))
	defer server.Close()
	s, err := Subscribe([]Endpoint{{Host: strings.Replace(server.URL, "http", "tcp", 1)}},
		Selector{MatchLabels: map[string]string{"app": "web"}}, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	set := expect(t, s, "a", "h")
	if dial := set.Targets[1].Dial; dial != "127.0.0.1:81" {
		t.Errorf("the host-networked container is dialed at %s, want 127.0.0.1:81", dial)
	}
	e.Run(web("b"))
	expect(t, s, "a", "b", "h")
}

// relay serves an engine's socket over HTTP.
func relay(e *dockertest.Engine) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		out := r.Clone(r.Context())
		out.RequestURI, out.URL.Scheme, out.URL.Host = "", "http", "docker"
		resp, err := e.Client().Do(out)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		defer resp.Body.Close()
		for name, values := range resp.Header {
			w.Header()[name] = values
		}
		w.WriteHeader(resp.StatusCode)
		control, buffer := http.NewResponseController(w), make([]byte, 32<<10)
		for {
			_ = control.Flush()
			n, err := resp.Body.Read(buffer)
			_, _ = w.Write(buffer[:n])
			if err == io.EOF || err != nil {
				_ = control.Flush()
				return
			}
		}
	})
}

// The test logs the latency from an event to the set. It has no bound, because machines
// differ.
func TestStartIsRoutableSoon(t *testing.T) {
	e := dockertest.New(t)
	s, _ := follow(t, Selector{}, e)
	expect(t, s)
	var took []time.Duration
	for i := range 20 {
		begun := time.Now()
		e.Run(web(fmt.Sprintf("c%02d", i)))
		testkit.Eventually(t, "the container is known", func() bool { return len(s.Set().Targets) > i })
		took = append(took, time.Since(begun))
	}
	slices.Sort(took)
	t.Logf("event to set: median %s, most %s", took[10], took[19])
}
