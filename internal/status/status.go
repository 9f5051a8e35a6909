// Package status lets modules publish their state for reports, such as the operations
// endpoints and the dashboard. Reports do not depend on the modules.
package status

import (
	"encoding/json"
	"sync"
)

// Kind holds published states of one kind. K identifies the owner of a state. The zero
// value is ready to use. It is safe for concurrent use.
type Kind[K comparable, V any] struct {
	mu    sync.Mutex
	byKey map[K]map[*func() V]struct{} // Guarded by mu.
}

// Publish publishes a state. read is called for each report. The returned function ends
// the publication.
func (k *Kind[K, V]) Publish(key K, read func() V) (end func()) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.byKey == nil {
		k.byKey = make(map[K]map[*func() V]struct{})
	}
	if k.byKey[key] == nil {
		k.byKey[key] = make(map[*func() V]struct{})
	}
	k.byKey[key][&read] = struct{}{}
	return func() {
		k.mu.Lock()
		defer k.mu.Unlock()
		if delete(k.byKey[key], &read); len(k.byKey[key]) == 0 {
			delete(k.byKey, key)
		}
	}
}

// All returns the states that are published for a key, in no particular order. During a
// reload, both configurations may have published one.
func (k *Kind[K, V]) All(key K) (all []V) {
	k.mu.Lock()
	var reads []func() V
	for read := range k.byKey[key] {
		reads = append(reads, *read)
	}
	k.mu.Unlock()
	for _, read := range reads {
		all = append(all, read())
	}
	return all
}

// Keys returns the keys that have published states, in no particular order.
func (k *Kind[K, V]) Keys() (keys []K) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for key := range k.byKey {
		keys = append(keys, key)
	}
	return keys
}

// Decode converts states, through their JSON form, to a type with the fields that the
// caller needs. States that cannot be decoded are omitted.
func Decode[T any](states []any) (all []T) {
	for _, state := range states {
		encoded, err := json.Marshal(state)
		if err != nil {
			continue
		}
		var decoded T
		if json.Unmarshal(encoded, &decoded) == nil {
			all = append(all, decoded)
		}
	}
	return all
}
