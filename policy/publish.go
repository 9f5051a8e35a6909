package policy

import (
	"encoding/json"
	"slices"
	"sync"
)

// published is what policies tell about their state, for reports.
var published = struct {
	sync.Mutex
	byKey map[publishedKey]map[*func() any]struct{}
}{byKey: make(map[publishedKey]map[*func() any]struct{})}

type publishedKey struct {
	policy string
	place  RouteInfo
}

// Publish makes the state of a policy readable for reports, such as the operations
// endpoints: read is called whenever somebody asks, and returns a value that can be
// encoded as JSON. The parts of the place that do not matter are empty. The
// function that it returns ends it.
func Publish(policy string, place RouteInfo, read func() any) (end func()) {
	published.Lock()
	defer published.Unlock()
	key := publishedKey{policy, place}
	if published.byKey[key] == nil {
		published.byKey[key] = make(map[*func() any]struct{})
	}
	published.byKey[key][&read] = struct{}{}
	return func() {
		published.Lock()
		defer published.Unlock()
		if delete(published.byKey[key], &read); len(published.byKey[key]) == 0 {
			delete(published.byKey, key)
		}
	}
}

// Published returns what the policies of a name tell about a place, in no order.
func Published(policy string, place RouteInfo) (all []any) {
	published.Lock()
	var reads []func() any
	for read := range published.byKey[publishedKey{policy, place}] {
		reads = append(reads, *read)
	}
	published.Unlock()
	for _, read := range reads {
		all = append(all, read())
	}
	return all
}

// PublishingGateways lists the gateways of which something is told under a name.
func PublishingGateways(policy string) (names []string) {
	published.Lock()
	defer published.Unlock()
	for key := range published.byKey {
		if key.policy == policy && key.place.Gateway != "" {
			names = append(names, key.place.Gateway)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// PublishedAs is Published for those who do not know the types of what is told: each of
// it becomes a T by way of JSON. What does not fit is left out.
func PublishedAs[T any](policy string, place RouteInfo) (all []T) {
	for _, one := range Published(policy, place) {
		encoded, err := json.Marshal(one)
		if err != nil {
			continue
		}
		var own T
		if json.Unmarshal(encoded, &own) == nil {
			all = append(all, own)
		}
	}
	return all
}

// RefusalCount returns how many requests a policy has turned away, on all routes of the
// process or on one; the route of requests outside of a gateway is empty.
func RefusalCount(policy string, route ...string) (n uint64) {
	refusals.Each(func(what refusal, count uint64) {
		if what.policy == policy && (len(route) == 0 || route[0] == what.route) {
			n += count
		}
	})
	return n
}

// What is published under other names than those of policies.
const (
	// What policies need outside of the process: a Dependency each, in an empty RouteInfo.
	Dependencies = "dependencies"

	// How many requests of a gateway were answered from a cache, as uint64.
	CacheHits = "cache_hits"

	// How the backends of a gateway are: what the operations endpoint `services` tells.
	Services = "services"

	// How much of each quota of a gateway has been used: a list of them.
	Quotas = "quotas"
)

// Dependency is something outside that a policy needs, such as a Redis.
type Dependency struct {
	Name  string // what and where, without secrets
	Up    bool
	Error string // why it is not up
}

// RefusalsByPolicy returns how many requests each policy has turned away.
func RefusalsByPolicy() map[string]uint64 {
	all := make(map[string]uint64)
	refusals.Each(func(what refusal, n uint64) { all[what.policy] += n })
	return all
}
