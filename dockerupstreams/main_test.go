package dockerupstreams

import (
	"slices"
	"testing"

	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/rgate/rgate/dockerupstreams/dockertest"
	"github.com/rgate/rgate/internal/testkit"
)

func TestMain(m *testing.M) {
	// Tests are independent of the machine: detect no container.
	detectSelf = func() origin { return origin{} }
	goleak.VerifyTestMain(m,
		// Caddy's proxy starts one goroutine per process.
		goleak.IgnoreAnyFunction("github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy.(*Upstream).fillDynamicHost.func1.1"))
}

// follow subscribes to the containers with app=web on the engines. The subscription is
// closed at the end of the test.
func follow(t testing.TB, sel Selector, engines ...*dockertest.Engine) (*Subscription, *observer.ObservedLogs) {
	t.Helper()
	if sel.MatchLabels == nil {
		sel.MatchLabels = map[string]string{"app": "web"}
	}
	core, logs := observer.New(zapcore.DebugLevel)
	var endpoints []Endpoint
	for _, e := range engines {
		endpoints = append(endpoints, Endpoint{Host: e.Host()})
	}
	s, err := Subscribe(endpoints, sel, zap.New(core))
	if err != nil {
		t.Fatalf("Subscribe: %v", err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return s, logs
}

// expect waits until the set contains exactly these containers, in this order.
func expect(t testing.TB, s *Subscription, names ...string) *Set {
	t.Helper()
	testkit.Eventually(t, "the set is right", func() bool { return slices.Equal(namesOf(s.Set()), names) && s.Set().Synced })
	return s.Set()
}

func namesOf(set *Set) []string {
	names := make([]string, 0, len(set.Targets))
	for _, target := range set.Targets {
		names = append(names, target.Container)
	}
	return names
}

// web returns a container with the label app=web and port 80.
func web(name string) dockertest.Container {
	return dockertest.Container{
		Name:   name,
		Labels: map[string]string{"app": "web"},
		Ports:  []dockertest.Port{{PrivatePort: 80, Type: "tcp"}},
	}
}

// syncs returns the number of complete lists from the first endpoint of s.
func syncs(s *Subscription) uint64 { return s.parts[0].watcher.syncs.Load() }
