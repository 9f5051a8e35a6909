package operations

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"
)

// registries are the instances that have registered themselves, by the name of
// their gateway. They outlive reloads.
var registries = caddy.NewUsagePool()

// Registry is the registered instances of a gateway's backends. An instance is
// known until its time is over, unless it is heard of before, and gets requests as
// long as its health check passes, if it has one.
type Registry struct {
	gateway string // its name
	client  *http.Client
	stop    context.CancelFunc
	ended   sync.WaitGroup

	mu        sync.Mutex
	instances map[instanceKey]*registered // guarded by mu

	// What gets requests, by backend. It is replaced as a whole.
	routable atomic.Pointer[map[string][]string]
}

type instanceKey struct{ backend, instance string }

// registered is an instance. Its fields are guarded by the registry's mu.
type registered struct {
	dial    string
	check   string // the URL of its health check; empty: none
	ttl     time.Duration
	expires time.Time
	healthy bool
	failure string // of its last check
	checked bool   // whether a check is under way
}

const (
	// How often instances are looked after.
	registryTick = time.Second

	// How often and for how long an instance is asked how it is.
	checkEvery  = 10
	checkWithin = 2 * time.Second

	// The most instances of one gateway.
	maxRegistered = 10_000
)

// AcquireRegistry returns the registry of a gateway, which is to be released.
func AcquireRegistry(gateway string) (*Registry, error) {
	value, _, err := registries.LoadOrNew(gateway, func() (caddy.Destructor, error) { return newRegistry(gateway), nil })
	if err != nil {
		return nil, err
	}
	return value.(*Registry), nil
}

// Release gives the registry back. It does nothing for a nil registry.
func (r *Registry) Release() error {
	if r == nil {
		return nil
	}
	_, err := registries.Delete(r.gateway)
	return err
}

func newRegistry(gateway string) *Registry {
	ctx, cancel := context.WithCancel(context.Background())
	r := &Registry{
		gateway: gateway,
		client: &http.Client{
			Timeout:       checkWithin,
			Transport:     &http.Transport{DisableKeepAlives: true},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
		stop:      cancel,
		instances: make(map[instanceKey]*registered),
	}
	r.publish()
	r.ended.Go(func() { r.look(ctx) })
	return r
}

// Destruct implements caddy.Destructor.
func (r *Registry) Destruct() error {
	r.stop()
	r.ended.Wait()
	return nil
}

// Dials returns where the registered instances of a backend are that get requests.
func (r *Registry) Dials(backend string) []string {
	if r == nil {
		return nil
	}
	return (*r.routable.Load())[backend]
}

// put makes an instance known for a time, or tells more of a known one. It reports
// whether it is new.
func (r *Registry) put(backend, name string, dial, check string, ttl time.Duration) (isNew bool, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	key := instanceKey{backend, name}
	one := r.instances[key]
	if isNew = one == nil; isNew {
		if len(r.instances) >= maxRegistered {
			return false, fmt.Errorf("there are %d registered instances already: remove some", maxRegistered)
		}
		one = new(registered)
		r.instances[key] = one
	}
	if isNew || one.dial != dial || one.check != check {
		one.dial, one.check = dial, check
		one.healthy, one.failure = check == "", ""
	}
	one.ttl, one.expires = ttl, time.Now().Add(ttl)
	r.publishLocked()
	return isNew, nil
}

// renew prolongs the time of an instance by what it has asked for. It reports whether
// the instance is known.
func (r *Registry) renew(backend, name string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	one := r.instances[instanceKey{backend, name}]
	if one != nil {
		one.expires = time.Now().Add(one.ttl)
	}
	return one != nil
}

// remove forgets an instance. It reports whether it was known.
func (r *Registry) remove(backend, name string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	key := instanceKey{backend, name}
	_, known := r.instances[key]
	delete(r.instances, key)
	r.publishLocked()
	return known
}

// list returns the instances of a backend as reports show them.
func (r *Registry) list(backend string) (all []instance) {
	if r == nil {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for key, one := range r.instances {
		if key.backend != backend {
			continue
		}
		expires := one.expires
		shown := instance{Address: one.dial, Registered: key.instance, Expires: &expires, Status: healthy}
		if !one.healthy {
			shown.Status, shown.Reason = unhealthy, cmp.Or(one.failure, "its health check has not passed yet")
		}
		all = append(all, shown)
	}
	slices.SortFunc(all, func(a, b instance) int { return cmp.Compare(a.Registered, b.Registered) })
	return all
}

func (r *Registry) publish() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.publishLocked()
}

// publishLocked replaces what gets requests, if it has changed. The caller holds mu.
func (r *Registry) publishLocked() {
	routable := make(map[string][]string)
	for key, one := range r.instances {
		if one.healthy {
			routable[key.backend] = append(routable[key.backend], one.dial)
		}
	}
	for backend, dials := range routable {
		slices.Sort(dials)
		routable[backend] = slices.Compact(dials)
	}
	if old := r.routable.Load(); old == nil || !maps.EqualFunc(*old, routable, slices.Equal) {
		r.routable.Store(&routable)
	}
}

// look looks after the instances until the context ends.
func (r *Registry) look(ctx context.Context) {
	ticker := time.NewTicker(registryTick)
	defer ticker.Stop()
	for tick := 0; ; tick++ {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			r.tend(ctx, tick%checkEvery == 0)
		}
	}
}

// tend forgets instances whose time is over, and checks those that have to be.
func (r *Registry) tend(ctx context.Context, all bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	for key, one := range r.instances {
		switch {
		case now.After(one.expires):
			delete(r.instances, key)
		case one.check != "" && !one.checked && (all || !one.healthy):
			one.checked = true
			url := one.check
			r.ended.Go(func() { r.ask(ctx, one, url) })
		}
	}
	r.publishLocked()
}

// ask checks an instance.
func (r *Registry) ask(ctx context.Context, one *registered, url string) {
	failure := r.probe(ctx, url)
	r.mu.Lock()
	defer r.mu.Unlock()
	if one.checked = false; one.check == url {
		one.healthy, one.failure = failure == "", failure
		r.publishLocked()
	}
}

// probe returns why a health check does not pass, if it does not.
func (r *Registry) probe(ctx context.Context, url string) (failure string) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "its health check cannot be asked: " + err.Error()
	}
	response, err := r.client.Do(request)
	if err != nil {
		return "its health check does not answer: " + err.Error()
	}
	defer response.Body.Close()
	if response.StatusCode < 200 || response.StatusCode > 399 {
		return fmt.Sprintf("its health check answers %d", response.StatusCode)
	}
	return ""
}
