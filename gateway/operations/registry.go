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

// registries holds the registries by gateway name, across reloads.
var registries = caddy.NewUsagePool()

// Registry holds the instances that registered for the backends of a gateway, until
// they expire. An instance receives requests if it has no health check or the check
// passes.
type Registry struct {
	gateway string // gateway name
	client  *http.Client
	stop    context.CancelFunc
	workers sync.WaitGroup

	mu        sync.Mutex
	instances map[instanceKey]*registered // Guarded by mu.

	// The addresses that receive requests, by backend. Immutable; replaced on changes.
	routable atomic.Pointer[map[string][]string]
}

type instanceKey struct{ backend, instance string }

// registered is a registered instance. Its fields are guarded by the registry's mu.
type registered struct {
	dial    string
	check   string // URL of the health check; empty: no check
	ttl     time.Duration
	expires time.Time
	healthy bool
	failure string // error of the last check; empty: it passed
	pending bool   // a check is running
}

const (
	registryTick = time.Second

	// The interval of the health checks of healthy instances, in ticks. Other instances
	// are checked on each tick.
	checkEvery   = 10
	checkTimeout = 2 * time.Second

	// The maximum number of instances per gateway.
	maxRegistered = 10_000
)

// AcquireRegistry returns the registry of a gateway. The caller must call Release.
func AcquireRegistry(gateway string) (*Registry, error) {
	value, _, err := registries.LoadOrNew(gateway, func() (caddy.Destructor, error) { return newRegistry(gateway), nil })
	if err != nil {
		return nil, err
	}
	return value.(*Registry), nil
}

// Release releases the registry. The last release closes it. A nil registry is ignored.
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
			Timeout:       checkTimeout,
			Transport:     &http.Transport{DisableKeepAlives: true},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
		stop:      cancel,
		instances: make(map[instanceKey]*registered),
	}
	r.publish()
	r.workers.Go(func() { r.maintain(ctx) })
	return r
}

// Destruct implements caddy.Destructor.
func (r *Registry) Destruct() error {
	r.stop()
	r.workers.Wait()
	return nil
}

// Dials returns the addresses of a backend's registered instances that receive
// requests.
func (r *Registry) Dials(backend string) []string {
	if r == nil {
		return nil
	}
	return (*r.routable.Load())[backend]
}

// put adds or updates an instance. It reports whether the instance is new.
func (r *Registry) put(backend, name string, dial, check string, ttl time.Duration) (isNew bool, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	key := instanceKey{backend, name}
	inst := r.instances[key]
	if isNew = inst == nil; isNew {
		if len(r.instances) >= maxRegistered {
			return false, fmt.Errorf("too many registered instances: the maximum is %d", maxRegistered)
		}
		inst = new(registered)
		r.instances[key] = inst
	}
	if isNew || inst.dial != dial || inst.check != check {
		inst.dial, inst.check = dial, check
		inst.healthy, inst.failure = check == "", ""
	}
	inst.ttl, inst.expires = ttl, time.Now().Add(ttl)
	r.publishLocked()
	return isNew, nil
}

// renew restarts the TTL of an instance. It reports whether the instance exists.
func (r *Registry) renew(backend, name string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	inst := r.instances[instanceKey{backend, name}]
	if inst != nil {
		inst.expires = time.Now().Add(inst.ttl)
	}
	return inst != nil
}

// remove removes an instance. It reports whether the instance existed.
func (r *Registry) remove(backend, name string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	key := instanceKey{backend, name}
	_, known := r.instances[key]
	delete(r.instances, key)
	r.publishLocked()
	return known
}

// list returns the registered instances of a backend.
func (r *Registry) list(backend string) (all []instance) {
	if r == nil {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for key, inst := range r.instances {
		if key.backend != backend {
			continue
		}
		expires := inst.expires
		report := instance{Address: inst.dial, Registered: key.instance, Expires: &expires, Status: healthy}
		if !inst.healthy {
			report.Status, report.Reason = unhealthy, cmp.Or(inst.failure, "health check pending")
		}
		all = append(all, report)
	}
	slices.SortFunc(all, func(a, b instance) int { return cmp.Compare(a.Registered, b.Registered) })
	return all
}

func (r *Registry) publish() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.publishLocked()
}

// publishLocked replaces the snapshot of addresses if it has changed. The caller must
// hold mu.
func (r *Registry) publishLocked() {
	routable := make(map[string][]string)
	for key, inst := range r.instances {
		if inst.healthy {
			routable[key.backend] = append(routable[key.backend], inst.dial)
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

// maintain removes expired instances and runs health checks until the context is done.
func (r *Registry) maintain(ctx context.Context) {
	ticker := time.NewTicker(registryTick)
	defer ticker.Stop()
	for tick := 0; ; tick++ {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			r.tick(ctx, tick%checkEvery == 0)
		}
	}
}

// tick removes expired instances and starts the health checks that are due.
func (r *Registry) tick(ctx context.Context, all bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	for key, inst := range r.instances {
		switch {
		case now.After(inst.expires):
			delete(r.instances, key)
		case inst.check != "" && !inst.pending && (all || !inst.healthy):
			inst.pending = true
			url := inst.check
			r.workers.Go(func() { r.check(ctx, inst, url) })
		}
	}
	r.publishLocked()
}

// check runs the health check of an instance and stores the result.
func (r *Registry) check(ctx context.Context, inst *registered, url string) {
	failure := r.probe(ctx, url)
	r.mu.Lock()
	defer r.mu.Unlock()
	if inst.pending = false; inst.check == url {
		inst.healthy, inst.failure = failure == "", failure
		r.publishLocked()
	}
}

// probe requests the URL of a health check. It returns the failure, or an empty string.
func (r *Registry) probe(ctx context.Context, url string) (failure string) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "invalid health check: " + err.Error()
	}
	response, err := r.client.Do(request)
	if err != nil {
		return "health check failed: " + err.Error()
	}
	defer response.Body.Close()
	if response.StatusCode < 200 || response.StatusCode > 399 {
		return fmt.Sprintf("health check failed with status %d", response.StatusCode)
	}
	return ""
}
