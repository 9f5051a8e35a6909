package logging

import "sync"

// OnceEach reports the first time that each value is seen, so that it is logged once. It
// is safe for concurrent use.
type OnceEach[V comparable] struct {
	mu   sync.RWMutex
	seen map[V]struct{} // Guarded by mu.
}

// First reports whether a value is seen for the first time. Clients can invent values:
// after most of them, First keeps no more and reports false.
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
