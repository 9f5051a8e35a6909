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

	"github.com/rgate/rgate/policy"
	"github.com/rgate/rgate/traffic/httpcache"
)

// shelves has the one shelf of the process, as long as there are caches.
var shelves = caddy.NewUsagePool()

const theShelf = "cache"

// unusedFor is how long a store is kept that no cache uses: after a reload, caches
// take hold of theirs by their first requests.
const unusedFor = 5 * time.Minute

// cacheShelf is the stores of all gateways. It outlives reloads.
type cacheShelf struct {
	mu     sync.Mutex
	stores map[string]*cacheStore // by the name of the gateway. Guarded by mu.
	tidier *time.Timer            // Guarded by mu.
	gone   bool                   // Guarded by mu.
}

// cacheStore is the store of a gateway.
type cacheStore struct {
	*httpcache.Store
	gateway string
	end     func()              // of telling about it
	users   map[*Cache]struct{} // Guarded by the shelf's mutex, as below.
	unused  time.Time           // since when there is no user
	counts  sync.Map            // of *cacheCounts, by route
}

func acquireShelf() (*cacheShelf, error) {
	shelf, _, err := shelves.LoadOrNew(theShelf, func() (caddy.Destructor, error) {
		return &cacheShelf{stores: make(map[string]*cacheStore)}, nil
	})
	if err != nil {
		return nil, err
	}
	return shelf.(*cacheShelf), nil
}

func releaseShelf() error {
	_, err := shelves.Delete(theShelf)
	return err
}

// Destruct implements caddy.Destructor.
func (s *cacheShelf) Destruct() error {
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

// join makes a cache use the store of a gateway.
func (s *cacheShelf) join(gateway string, p *Cache) *cacheStore {
	s.mu.Lock()
	defer s.mu.Unlock()
	store := s.stores[gateway]
	if store == nil {
		store = &cacheStore{Store: httpcache.NewStore(int64(p.MaxBytes)), gateway: gateway, users: make(map[*Cache]struct{})}
		store.end = func() {}
		if s.gone {
			return store
		}
		store.end = policy.Publish(policy.CacheHits, policy.Place{Gateway: gateway}, func() any { return store.hits() })
		s.stores[gateway] = store
	}
	if p.left { // a last request of a configuration that is gone
		store.unused = time.Now()
		s.tidyLater()
		return store
	}
	store.users[p] = struct{}{}
	store.adjust()
	return store
}

// leave ends the use of all stores by a cache.
func (s *cacheShelf) leave(p *Cache) {
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

func (s *cacheShelf) tidyLater() {
	if s.tidier == nil && !s.gone {
		s.tidier = time.AfterFunc(unusedFor, s.tidy)
	}
}

// tidy removes the stores that nobody has used for some time.
func (s *cacheShelf) tidy() {
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

// all lists the stores, by the names of their gateways.
func (s *cacheShelf) all() []*cacheStore {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make([]*cacheStore, 0, len(s.stores))
	for _, gateway := range slices.Sorted(maps.Keys(s.stores)) {
		list = append(list, s.stores[gateway])
	}
	return list
}

// allCacheStores lists the stores of the process.
func allCacheStores() (list []*cacheStore) {
	shelves.Range(func(_, shelf any) bool {
		list = shelf.(*cacheShelf).all()
		return true
	})
	return list
}

// adjust gives a store the largest bound that one of its users asks for.
func (s *cacheStore) adjust() {
	var most int64
	for user := range s.users {
		most = max(most, int64(user.MaxBytes))
	}
	if most > 0 {
		s.SetMost(most)
	}
}

// What becomes of requests.
const (
	cacheHit         = iota // answered from the store
	cacheRevalidated        // … after the backend said that it still holds
	cacheStale              // … although it is stale
	cacheMiss               // not answered from it
	cacheBypass             // none for a cache
	cacheResults
)

var cacheResultNames = [cacheResults]string{"hit", "revalidated", "stale", "miss", "bypass"}

// cacheCounts counts what became of a route's requests.
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

// hits is how many requests were answered from the store.
func (s *cacheStore) hits() (n uint64) {
	s.counts.Range(func(_, counts any) bool {
		for _, result := range []int{cacheHit, cacheRevalidated, cacheStale} {
			n += counts.(*cacheCounts).results[result].Load()
		}
		return true
	})
	return n
}

// cacheSite is what a cache has to know of a place where it stands.
type cacheSite struct {
	place  policy.Place
	scope  []byte // of the keys of its answers
	store  *cacheStore
	counts *cacheCounts
}

// site returns where a request is. There are as many sites as the configuration has
// ways through the cache.
func (p *Cache) site(r *http.Request) *cacheSite {
	place := policy.PlaceOf(r)
	if sites := p.sites.Load(); sites != nil {
		if site := (*sites)[place]; site != nil {
			return site
		}
	}
	p.sitesMu.Lock()
	defer p.sitesMu.Unlock()
	sites := make(map[policy.Place]*cacheSite)
	if known := p.sites.Load(); known != nil {
		if site := (*known)[place]; site != nil {
			return site
		}
		maps.Copy(sites, *known)
	}
	store := p.shelf.join(place.Gateway, p)
	site := &cacheSite{place: place, store: store, counts: store.countsOf(place.Route)}
	for _, name := range []string{p.position.String(), place.Route, place.Backend} {
		site.scope = binary.AppendUvarint(site.scope, uint64(len(name)))
		site.scope = append(site.scope, name...)
	}
	sites[place] = site
	p.sites.Store(&sites)
	return site
}
