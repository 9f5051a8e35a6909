package cache

import (
	"encoding/binary"
	"maps"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/rgate/rgate/internal/status"
	"github.com/rgate/rgate/policy"
	"github.com/rgate/rgate/traffic/httpcache"
)

// pools holds the storePool of the process while there are caches.
var pools = caddy.NewUsagePool()

const thePool = "cache"

// unusedFor is the time after which an unused store is removed. It covers the time
// between a reload and the first requests, which acquire the stores again.
const unusedFor = 5 * time.Minute

// storePool holds the stores of all gateways. It survives configuration reloads.
type storePool struct {
	mu     sync.Mutex
	stores map[string]*cacheStore // by gateway. Guarded by mu.
	tidier *time.Timer            // Guarded by mu.
	gone   bool                   // Guarded by mu.
}

// cacheStore is the store of a gateway.
type cacheStore struct {
	*httpcache.Store
	gateway string
	end     func()              // stops publishing the number of hits
	users   map[*Cache]struct{} // Guarded by the pool's mu, like unused
	unused  time.Time           // time of the last use; valid if there are no users
	counts  sync.Map            // *cacheCounts by route
}

func acquireStores() (*storePool, error) {
	pool, _, err := pools.LoadOrNew(thePool, func() (caddy.Destructor, error) {
		return &storePool{stores: make(map[string]*cacheStore)}, nil
	})
	if err != nil {
		return nil, err
	}
	return pool.(*storePool), nil
}

func releaseStores() error {
	_, err := pools.Delete(thePool)
	return err
}

// Destruct implements caddy.Destructor.
func (s *storePool) Destruct() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gone = true
	if s.tidier != nil {
		s.tidier.Stop()
	}
	for _, store := range s.stores {
		store.end()
	}
	clear(s.stores)
	return nil
}

// join returns the store of a gateway and adds the cache to its users.
func (s *storePool) join(gateway string, p *Cache) *cacheStore {
	s.mu.Lock()
	defer s.mu.Unlock()
	store := s.stores[gateway]
	if store == nil {
		store = &cacheStore{Store: httpcache.NewStore(int64(p.MaxBytes)), gateway: gateway, users: make(map[*Cache]struct{})}
		store.end = func() {}
		if s.gone {
			return store
		}
		store.end = status.CacheHits.Publish(gateway, store.hits)
		s.stores[gateway] = store
	}
	if p.left { // a late request of a configuration that was replaced
		store.unused = time.Now()
		s.tidyLater()
		return store
	}
	store.users[p] = struct{}{}
	store.adjust()
	return store
}

// leave removes the cache from the users of all stores.
func (s *storePool) leave(p *Cache) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p.left = true
	for _, store := range s.stores {
		if _, ok := store.users[p]; !ok {
			continue
		}
		delete(store.users, p)
		store.adjust()
		if len(store.users) == 0 {
			store.unused = time.Now()
			s.tidyLater()
		}
	}
}

func (s *storePool) tidyLater() {
	if s.tidier == nil && !s.gone {
		s.tidier = time.AfterFunc(unusedFor, s.tidy)
	}
}

// tidy removes stores that have been unused for unusedFor.
func (s *storePool) tidy() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tidier = nil
	next := time.Duration(0)
	for gateway, store := range s.stores {
		if len(store.users) > 0 {
			continue
		}
		if left := unusedFor - time.Since(store.unused); left > 0 {
			next = max(next, left)
			continue
		}
		store.end()
		delete(s.stores, gateway)
	}
	if next > 0 {
		s.tidier = time.AfterFunc(next, s.tidy)
	}
}

// all returns the stores, sorted by gateway.
func (s *storePool) all() []*cacheStore {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make([]*cacheStore, 0, len(s.stores))
	for _, gateway := range slices.Sorted(maps.Keys(s.stores)) {
		list = append(list, s.stores[gateway])
	}
	return list
}

// allCacheStores returns all stores of the process, sorted by gateway.
func allCacheStores() (list []*cacheStore) {
	pools.Range(func(_, pool any) bool {
		list = pool.(*storePool).all()
		return true
	})
	return list
}

// adjust sets the size of the store to the largest max_bytes of its users.
func (s *cacheStore) adjust() {
	var most int64
	for user := range s.users {
		most = max(most, int64(user.MaxBytes))
	}
	if most > 0 {
		s.SetMost(most)
	}
}

// Results of requests, as reported in metrics.
const (
	cacheHit         = iota // served from the store
	cacheRevalidated        // served from the store after validation
	cacheStale              // served from the store although stale
	cacheMiss               // not served from the store
	cacheBypass             // not cached because of the request
	cacheResults
)

var cacheResultNames = [cacheResults]string{"hit", "revalidated", "stale", "miss", "bypass"}

// cacheCounts counts the results of a route's requests.
type cacheCounts struct {
	results [cacheResults]atomic.Uint64
}

func (c *cacheCounts) add(result int) { c.results[result].Add(1) }

func (s *cacheStore) countsOf(route string) *cacheCounts {
	counts, ok := s.counts.Load(route)
	if !ok {
		counts, _ = s.counts.LoadOrStore(route, new(cacheCounts))
	}
	return counts.(*cacheCounts)
}

// hits returns the number of requests that were served from the store.
func (s *cacheStore) hits() (n uint64) {
	s.counts.Range(func(_, counts any) bool {
		for _, result := range []int{cacheHit, cacheRevalidated, cacheStale} {
			n += counts.(*cacheCounts).results[result].Load()
		}
		return true
	})
	return n
}

// cacheSite is the state of a cache for a gateway, route and backend.
type cacheSite struct {
	place  policy.RouteInfo
	scope  []byte // part of its keys: the position of the policy, the route and the backend
	store  *cacheStore
	counts *cacheCounts
}

// site returns the state for the route of a request, and creates it if necessary. The
// configuration bounds the number of sites.
func (p *Cache) site(r *http.Request) *cacheSite {
	place := policy.RouteInfoOf(r)
	if sites := p.sites.Load(); sites != nil {
		if site := (*sites)[place]; site != nil {
			return site
		}
	}
	p.sitesMu.Lock()
	defer p.sitesMu.Unlock()
	sites := make(map[policy.RouteInfo]*cacheSite)
	if known := p.sites.Load(); known != nil {
		if site := (*known)[place]; site != nil {
			return site
		}
		maps.Copy(sites, *known)
	}
	store := p.stores.join(place.Gateway, p)
	site := &cacheSite{place: place, store: store, counts: store.countsOf(place.Route)}
	for _, name := range []string{p.position.String(), place.Route, place.Backend} {
		site.scope = binary.AppendUvarint(site.scope, uint64(len(name)))
		site.scope = append(site.scope, name...)
	}
	sites[place] = site
	p.sites.Store(&sites)
	return site
}
