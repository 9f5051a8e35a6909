package dockerupstreams

import (
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"
)

// watchers holds one watcher per address while there are subscriptions.
var watchers = caddy.NewUsagePool()

// detectSelf runs once: a process does not move between containers.
var detectSelf = sync.OnceValue(findOrigin)

// Subscription follows the containers of one selector. Its methods are safe for
// concurrent use.
type Subscription struct {
	sel    Selector
	key    string
	logger *zap.Logger
	parts  []part
	closed sync.Once

	// With several endpoints, the merged sets of all parts; nil otherwise.
	merged *atomic.Pointer[Set]
	mu     sync.Mutex // one merge at a time
}

// part is the part of a subscription on one endpoint.
type part struct {
	addr    address
	watcher *watcher
	view    *view
}

// Subscribe follows the containers of sel on every endpoint (none: the default one). All
// subscriptions of the process share one connection per endpoint. It does not wait for
// Docker, and does not fail without it: until the engine has responded, the set is empty
// and not Synced.
//
// Global placeholders, such as {env.STAGE}, are replaced in the values of the
// labels, the network, and the endpoints. It is an error if sel is invalid, if
// an endpoint's address or certificates are, or if a placeholder is empty.
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

// replacePlaceholders returns copies with global placeholders replaced.
func replacePlaceholders(sel Selector, endpoints []Endpoint) (Selector, []Endpoint, error) {
	repl := caddy.NewReplacer()
	var empty error
	replace := func(option, value string) string {
		replaced := repl.ReplaceKnown(value, "")
		if replaced == "" && value != "" && empty == nil {
			empty = fmt.Errorf("%s %q is empty: set the variable that it names", option, value)
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
		endpoints[i] = Endpoint{
			Host:     replace("docker host", e.Host),
			CertPath: replace("cert_path", e.CertPath),
		}
	}
	return sel, endpoints, empty
}

// acquire returns the watcher of an address, and starts it if needed.
func (s *Subscription) acquire(addr address) error {
	value, _, err := watchers.LoadOrNew(addr, func() (caddy.Destructor, error) {
		open := func() (engine, error) { return openEngine(addr) }
		trial, err := open()
		if err != nil {
			return nil, err
		}
		trial.close()
		return newWatcher(addr, detectSelf(), s.logger, open), nil
	})
	if err != nil {
		return fmt.Errorf("preparing docker endpoint %s: %w (cert_path is the folder of ca.pem, cert.pem and key.pem)", addr, err)
	}
	s.parts = append(s.parts, part{addr: addr, watcher: value.(*watcher)})
	return nil
}

// Started returns when a container last started, in nanoseconds since 1970, or 0 if no
// start was reported while the gateway was connected. It takes no lock.
func (s *Subscription) Started(id string) int64 {
	for _, p := range s.parts {
		if at, ok := p.watcher.table.starts.Load(id); ok {
			return at.(int64)
		}
	}
	return 0
}

// Set returns the currently known containers. It takes no lock and allocates nothing.
func (s *Subscription) Set() *Set {
	if s.merged != nil {
		return s.merged.Load()
	}
	return s.parts[0].view.set.Load()
}

// merge merges the parts' sets. It is called whenever one of them changed.
func (s *Subscription) merge() {
	s.mu.Lock()
	defer s.mu.Unlock()
	sets := make([]*Set, len(s.parts))
	for i, p := range s.parts {
		sets[i] = p.view.set.Load()
	}
	s.merged.Store(mergeSets(sets))
}

// Refresh reports that the set may be outdated, for example because a dial failed. It does
// not block; it causes at most one new list per second.
func (s *Subscription) Refresh() {
	for _, p := range s.parts {
		notify(p.watcher.hints)
	}
}

// Close ends the subscription. The last set remains readable. The connection to
// an endpoint ends with the last subscription that uses it.
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
