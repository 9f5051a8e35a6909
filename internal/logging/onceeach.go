package logging

import "sync"

// OnceEach detects the first occurrence of each value, so that it is logged once. It is
// safe for concurrent use.
type OnceEach[V comparable] struct {
	mu   sync.RWMutex
	seen map[V]struct{} // Guarded by mu.
}

// First reports whether a value occurs for the first time. Because clients can choose
// values, it records no more than most values, and returns false for others.
func (o *OnceEach[V]) First(value V, most int) bool {
	o.mu.RLock()
	_, known := o.seen[value]
	full := len(o.seen) >= most
	o.mu.RUnlock()
	if known || full {
		return false
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if _, known := o.seen[value]; known || len(o.seen) >= most {
		return false
	}
	if o.seen == nil {
		o.seen = make(map[V]struct{})
	}
	o.seen[value] = struct{}{}
	return true
}
