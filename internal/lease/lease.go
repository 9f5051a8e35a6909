// Package lease manages shared values that policies use and that outlive a policy, such
// as the values of a caddy.UsagePool.
package lease

import (
	"maps"
	"sync"
	"sync/atomic"
)

// Set holds the values that a policy uses, by key. Each value is acquired on first use
// and released in Cleanup. The zero value is ready to use. It is safe for concurrent
// use.
type Set[K comparable, V any] struct {
	first atomic.Pointer[item[K, V]] // fast path: most policies have one key
	all   atomic.Pointer[map[K]V]    // immutable; replaced on changes

	mu       sync.Mutex
	releases []func() // Guarded by mu.
	closed   bool     // Guarded by mu.
}

type item[K comparable, V any] struct {
	key   K
	value V
}

// Get returns the value for a key.
func (s *Set[K, V]) Get(key K) (value V, ok bool) {
	if first := s.first.Load(); first != nil && first.key == key {
		return first.value, true
	}
	if all := s.all.Load(); all != nil {
		value, ok = (*all)[key]
	}
	return value, ok
}

// Add returns the value for a key. The first call for a key acquires the value. A value
// acquired after Release, for a request in flight, is released immediately and must
// remain usable.
func (s *Set[K, V]) Add(key K, acquire func() (value V, release func())) V {
	s.mu.Lock()
	defer s.mu.Unlock()
	if value, ok := s.Get(key); ok {
		return value
	}
	value, release := acquire()
	if s.closed {
		release()
		return value
	}
	s.releases = append(s.releases, release)
	if s.first.CompareAndSwap(nil, &item[K, V]{key, value}) {
		return value
	}
	more := map[K]V{key: value}
	if all := s.all.Load(); all != nil {
		maps.Copy(more, *all)
	}
	s.all.Store(&more)
	return value
}

// Keep adds a function that Release calls.
func (s *Set[K, V]) Keep(release func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.releases = append(s.releases, release)
}

// Release releases all values. Requests in flight acquire them again.
func (s *Set[K, V]) Release() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, release := range s.releases {
		release()
	}
	s.releases, s.closed = nil, true
	s.first.Store(nil)
	s.all.Store(nil)
}
