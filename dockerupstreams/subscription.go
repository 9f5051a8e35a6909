package dockerupstreams

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"
)

// watchers holds the watcher of each address that has subscriptions.
var watchers = caddy.NewUsagePool()

// detectSelf returns the origin of the process. It is detected once.
var detectSelf = sync.OnceValue(findOrigin)

// Subscription follows the containers of one selector. Its methods are safe for
// concurrent use.
type Subscription struct {
	sel    Selector
	key    string
	logger *zap.Logger
	parts  []part
	closed sync.Once

	// The merged set of all parts. nil with a single endpoint.
	merged *atomic.Pointer[Set]
	mu     sync.Mutex // serializes merges
}

// part is a subscription's state for one endpoint.
type part struct {
	addr    address
	watcher *watcher
	view    *view
}

// Subscribe follows the containers of sel on all endpoints. Without endpoints, it uses
// the default engine. Subscriptions of the process share a connection per endpoint.
// Subscribe neither waits for Docker nor fails if it is unavailable. Until the engine
// has responded, the set is empty and not Synced.
//
// Global placeholders such as {env.STAGE} are replaced in label values, the network and
// the endpoints. Subscribe returns an error if sel, an endpoint's address or its
// certificates are invalid, or if a value is empty.
func Subscribe(endpoints []Endpoint, sel Selector, logger *zap.Logger) (*Subscription, error) {
	sel, endpoints, err := replacePlaceholders(sel, endpoints)
	if err != nil {
		return nil, err
	}
	if err := sel.Validate(); err != nil {
		return nil, err
	}
	if len(endpoints) == 0 {
		endpoints = []Endpoint{{}}
	}
	if logger == nil {
		logger = zap.NewNop()
	}
	s := &Subscription{sel: sel, key: sel.key(), logger: logger}
	seen := make(map[address]bool)
	for _, e := range endpoints {
		addr, err := resolveEndpoint(e)
		if err == nil && !seen[addr] {
			seen[addr] = true
			err = s.acquire(addr)
		}
		if err != nil {
			_ = s.Close()
			return nil, err
		}
	}
	for i := range s.parts {
		s.parts[i].view = s.parts[i].watcher.subscribe(s)
	}
	if len(s.parts) > 1 {
		s.merged = new(atomic.Pointer[Set])
		for _, p := range s.parts {
			p.watcher.listen(p.view, s)
		}
		s.merge()
	}
	return s, nil
}

// replacePlaceholders returns copies with global placeholders replaced, and an error if
// a value becomes empty.
func replacePlaceholders(sel Selector, endpoints []Endpoint) (Selector, []Endpoint, error) {
	repl := caddy.NewReplacer()
	var empty error
	replace := func(option, value string) string {
		replaced := repl.ReplaceKnown(value, "")
		if replaced == "" && value != "" && empty == nil {
			empty = fmt.Errorf("%s %q is empty: set the environment variable or the file of its placeholder", option, value)
		}
		return replaced
	}
	sel.MatchLabels = maps.Clone(sel.MatchLabels)
	for name, value := range sel.MatchLabels {
		sel.MatchLabels[name] = replace("match_labels "+name, value)
	}
	sel.Network = replace("network", sel.Network)
	endpoints = slices.Clone(endpoints)
	for i, e := range endpoints {
		e.Host, e.CertPath = replace("docker host", e.Host), replace("cert_path", e.CertPath)
		endpoints[i] = e
	}
	return sel, endpoints, empty
}

// acquire adds a part with the watcher of an address. It starts the watcher if needed.
func (s *Subscription) acquire(addr address) error {
	value, _, err := watchers.LoadOrNew(addr, func() (caddy.Destructor, error) {
		open := func() (engine, error) { return openEngine(addr) }
		trial, err := open()
		if err != nil {
			return nil, err
		}
		trial.close()
		if addr.context != "" && addr.context != "default" {
			s.logger.Warn("the environment variable DOCKER_CONTEXT is ignored: set DOCKER_HOST or the option docker to the host of the context",
				zap.String("context", addr.context), zap.Stringer("endpoint", addr))
		}
		return newWatcher(addr, detectSelf(), s.logger, open), nil
	})
	if err != nil {
		return fmt.Errorf("preparing docker endpoint %s: %w (cert_path, if set, must be the directory of ca.pem, cert.pem and key.pem)", addr, err)
	}
	s.parts = append(s.parts, part{addr: addr, watcher: value.(*watcher)})
	return nil
}

// Started returns the time of a container's last start as Unix nanoseconds, or 0 if no
// start event was received. It does not take the watcher's lock.
func (s *Subscription) Started(id string) int64 {
	for _, p := range s.parts {
		if at, ok := p.watcher.table.starts.Load(id); ok {
			return at.(int64)
		}
	}
	return 0
}

// Set returns the current containers. It is lock-free and does not allocate.
func (s *Subscription) Set() *Set {
	if s.merged != nil {
		return s.merged.Load()
	}
	return s.parts[0].view.set.Load()
}

// The maximum time for which a request waits for the first list after an outage.
const settleTime = time.Second

// Settled returns the current containers for a request. After an outage of an engine, it
// waits until the engine has listed its containers, which may have been restarted with
// other addresses. It waits for at most a second, and until ctx is done.
func (s *Subscription) Settled(ctx context.Context) *Set {
	set := s.Set()
	if set.settling == nil {
		return set
	}
	ctx, cancel := context.WithTimeout(ctx, settleTime)
	defer cancel()
	for set.settling != nil && len(set.Targets) > 0 {
		select {
		case <-set.settling:
		case <-ctx.Done():
			return s.Set()
		}
		last := set
		if set = s.Set(); set == last { // closed
			break
		}
	}
	return set
}

// Ready reports whether all containers that can be known are: each engine has listed its
// containers, or another one has and this one cannot be reached.
func (s *Subscription) Ready() bool {
	known := false
	for _, p := range s.parts {
		synced, failed := p.watcher.progress()
		if !synced && !failed {
			return false
		}
		known = known || synced
	}
	return known
}

// merge updates the merged set. It is called after each change of a part's set.
func (s *Subscription) merge() {
	s.mu.Lock()
	defer s.mu.Unlock()
	sets := make([]*Set, len(s.parts))
	for i, p := range s.parts {
		sets[i] = p.view.set.Load()
	}
	s.merged.Store(mergeSets(sets))
}

// Refresh requests a new list, for example after a failed dial. It does not block. It
// causes at most one list per second and endpoint.
func (s *Subscription) Refresh() {
	for _, p := range s.parts {
		notify(p.watcher.hints)
	}
}

// Close ends the subscription. Set still returns the last set. The connection to an
// endpoint is closed with its last subscription.
func (s *Subscription) Close() error {
	var first error
	s.closed.Do(func() {
		for _, p := range s.parts {
			if p.view != nil {
				p.watcher.unsubscribe(s, p.view)
			}
			if _, err := watchers.Delete(p.addr); err != nil && first == nil {
				first = err
			}
		}
	})
	return first
}
