package traffic

import (
	"maps"
	"sync"
	"sync/atomic"
)

// held is what a policy has in use of something that outlives it, such as an item of
// a caddy.UsagePool: for each place, from its first request there until Cleanup.
type held[K comparable, V any] struct {
	first atomic.Pointer[heldItem[K, V]] // most policies see one place, and need no map
	all   atomic.Pointer[map[K]V]        // never changed, only replaced

	mu     sync.Mutex
	letGo  []func() // Guarded by mu.
	closed bool     // Guarded by mu.
}

type heldItem[K comparable, V any] struct {
	place K
	value V
}

// get returns what is held for a place.
func (h *held[K, V]) get(place K) (value V, ok bool) {
	if first := h.first.Load(); first != nil && first.place == place {
		return first.value, true
	}
	if all := h.all.Load(); all != nil {
		value, ok = (*all)[place]
	}
	return value, ok
}

// add returns what is held for a place, and acquires it if it is the first to ask.
// What is acquired for requests that are still under way after release is let go at
// once; it works all the same.
func (h *held[K, V]) add(place K, acquire func() (value V, letGo func())) V {
	h.mu.Lock()
	defer h.mu.Unlock()
	if value, ok := h.get(place); ok {
		return value
	}
	value, letGo := acquire()
	if h.closed {
		letGo()
	} else {
		h.letGo = append(h.letGo, letGo)
	}
	if h.first.CompareAndSwap(nil, &heldItem[K, V]{place, value}) {
		return value
	}
	more := map[K]V{place: value}
	if all := h.all.Load(); all != nil {
		maps.Copy(more, *all)
	}
	h.all.Store(&more)
	return value
}

// keep lets something go with everything else.
func (h *held[K, V]) keep(letGo func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.letGo = append(h.letGo, letGo)
}

// release lets everything go.
func (h *held[K, V]) release() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, letGo := range h.letGo {
		letGo()
	}
	h.letGo, h.closed = nil, true
}
