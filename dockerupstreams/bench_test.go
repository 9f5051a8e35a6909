package dockerupstreams

import (
	"bufio"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/rgate/rgate/dockerupstreams/dockertest"
	"github.com/rgate/rgate/internal/testkit"
)

var sizes = []int{10, 100, 1_000, 10_000}

// BenchmarkGetUpstreams measures the cost per request if three of n containers match.
func BenchmarkGetUpstreams(b *testing.B) {
	for _, n := range sizes {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			e := dockertest.New(b)
			for i := range n {
				c := web(fmt.Sprintf("c%05d", i))
				if i >= 3 {
					c.Labels = map[string]string{"app": "other"}
				}
				e.Run(c)
			}
			s := &Source{subscription: benchSubscription(b, e, "web")}
			testkit.Eventually(b, "all are known", func() bool { return len(s.subscription.Set().Targets) == 3 })
			r := httptest.NewRequest(http.MethodGet, "/", nil)
			b.ReportAllocs()
			b.ResetTimer()
			for b.Loop() {
				if upstreams, err := s.GetUpstreams(r); err != nil || len(upstreams) != 3 {
					b.Fatal(upstreams, err)
				}
			}
		})
	}
}

func benchSubscription(b *testing.B, e *dockertest.Engine, app string) *Subscription {
	b.Helper()
	s, err := Subscribe([]Endpoint{{Host: e.Host()}}, Selector{MatchLabels: map[string]string{"app": app}}, zap.NewNop())
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = s.Close() })
	return s
}

// BenchmarkPublish measures the cost of an event in a set of n containers.
func BenchmarkPublish(b *testing.B) {
	for _, n := range sizes {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			v := newView(Selector{MatchLabels: map[string]string{"app": "web"}})
			all := make([]*container, n)
			for i := range all {
				all[i] = running(func(c *container) { c.id, c.name = fmt.Sprintf("%064x", i), fmt.Sprintf("c%05d", i) })
				v.consider(all[i].id, all[i], nil, false, &onHost)
			}
			v.publish(true)
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				c := all[i/2%n]
				v.consider(c.id, c, nil, i%2 == 0, &onHost)
				v.publish(true)
				i++
			}
		})
	}
}

// BenchmarkWholeList measures the cost of a list of n containers: decoding it and
// resolving all containers.
func BenchmarkWholeList(b *testing.B) {
	for _, n := range sizes {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			e := dockertest.New(b)
			for i := range n {
				e.Run(web(fmt.Sprintf("c%05d", i)))
			}
			resp, err := e.Client().Get("http://docker/v1.41/containers/json")
			if err != nil {
				b.Fatal(err)
			}
			defer resp.Body.Close()
			var text strings.Builder
			if _, err := bufio.NewReader(resp.Body).WriteTo(&text); err != nil {
				b.Fatal(err)
			}
			v, table := newView(Selector{MatchLabels: map[string]string{"app": "web"}}), newTable(func(*container) bool { return true })
			b.ReportAllocs()
			for b.Loop() {
				list, err := decodeList(strings.NewReader(text.String()))
				if err != nil {
					b.Fatal(err)
				}
				table.replaceAll(list, time.Now())
				for id := range table.touched {
					v.consider(id, table.running[id], nil, false, &onHost)
				}
				clear(table.touched)
				v.publish(true)
			}
		})
	}
}

// BenchmarkLoad measures the cost of following an engine with 10,000 containers that
// emits 1,000 events per second: the CPU usage of a core, and the additional memory.
// The engine runs in a separate process, which is not measured. An iteration takes one
// second.
func BenchmarkLoad(b *testing.B) {
	for _, services := range []int{0, 1, 100} {
		b.Run(fmt.Sprintf("services=%d", services), func(b *testing.B) {
			host, stop := startHelper(b)
			defer stop()
			runtime.GC()
			idle := resident(b)
			var subs []*Subscription
			for i := range max(services, 1) {
				labels := map[string]string{"app": fmt.Sprintf("svc%d", i)}
				switch services {
				case 0: // no container is selected
					labels = map[string]string{"app": "none"}
				case 1: // all containers are selected
					labels = map[string]string{"all": "all"}
				}
				s, err := Subscribe([]Endpoint{{Host: host}}, Selector{MatchLabels: labels}, zap.NewNop())
				if err != nil {
					b.Fatal(err)
				}
				defer s.Close()
				subs = append(subs, s)
			}
			w := subs[0].parts[0].watcher
			testkit.Eventually(b, "all are known", func() bool { return subs[0].Set().Synced })
			events, begun, used := w.events.Load(), time.Now(), cpu(b)
			peak := uint64(0)
			b.ResetTimer()
			for range b.N {
				time.Sleep(time.Second) // the measured time
				peak = max(peak, resident(b))
			}
			took := time.Since(begun)
			b.ReportMetric(100*float64(cpu(b)-used)/float64(took), "%core")
			b.ReportMetric((float64(peak)-float64(idle))/(1<<20), "MB")
			b.ReportMetric(float64(w.events.Load()-events)/took.Seconds(), "events/s")
			b.ReportMetric(float64(w.lists.Load())/took.Seconds(), "lists/s")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// cpu returns the CPU time used by this process.
func cpu(b *testing.B) time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		b.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// resident returns the memory of this process that is not released to the system.
func resident(b *testing.B) uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.Sys - m.HeapReleased
}

const helperVariable = "RGATE_TEST_LOAD_ENGINE"

// startHelper runs TestHelperEngine in a separate process.
func startHelper(b *testing.B) (host string, stop func()) {
	b.Helper()
	helper := exec.Command(os.Args[0], "-test.run=^TestHelperEngine$", "-test.timeout=10m")
	helper.Env = append(os.Environ(), helperVariable+"=1")
	in, _ := helper.StdinPipe()
	out, _ := helper.StdoutPipe()
	if err := helper.Start(); err != nil {
		b.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		b.Fatalf("the helper did not start: %v", err)
	}
	return strings.TrimSpace(line), func() {
		_ = in.Close()
		_ = helper.Wait()
	}
}

// TestHelperEngine is not a test: it runs the engine of BenchmarkLoad.
func TestHelperEngine(t *testing.T) {
	if os.Getenv(helperVariable) == "" {
		t.Skip("only BenchmarkLoad needs it")
	}
	e := dockertest.New(t)
	ids := make([]string, 10_000)
	for i := range ids {
		c := web(fmt.Sprintf("container%05d", i))
		c.Labels = map[string]string{
			"all": "all", "app": fmt.Sprintf("svc%d", i%100), "com.docker.compose.project": "shop",
			"com.docker.compose.service": fmt.Sprintf("svc%d", i%100), "com.docker.compose.config-hash": strings.Repeat("0", 64),
			"com.docker.compose.container-number": fmt.Sprint(i), "maintainer": "someone", "version": "1.2.3",
		}
		ids[i] = e.Run(c)
	}
	fmt.Println(e.Host())
	done := make(chan struct{})
	go func() {
		_, _ = bufio.NewReader(os.Stdin).ReadByte()
		close(done)
	}()
	tick := time.NewTicker(4 * time.Millisecond)
	defer tick.Stop()
	for i := 0; ; i++ {
		select {
		case <-done:
			return
		case <-tick.C:
		}
		restarted, checked := ids[i*7%len(ids)], ids[i*13%len(ids)]
		e.Die(restarted)
		e.StartAgain(restarted)
		e.SetHealth(checked, []string{"unhealthy", "healthy"}[i%2])
		e.Kill(ids[i*17%len(ids)], 1)
	}
}
