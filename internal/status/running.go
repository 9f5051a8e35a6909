package status

import (
	"slices"
	"sync"
)

// Running lists the provisioned modules of one kind, in the order of provisioning.
// During a reload, it contains the modules of both configurations. The zero value is
// ready to use. It is safe for concurrent use.
type Running[T comparable] struct {
	mu  sync.Mutex
	all []T
}

// Add adds a module as the newest.
func (r *Running[T]) Add(module T) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.all = append(r.all, module)
}

// Remove removes a module, if present.
func (r *Running[T]) Remove(module T) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.all = slices.DeleteFunc(r.all, func(other T) bool { return other == module })
}

// Newest returns the newest module for which matches returns true, or the zero value.
func (r *Running[T]) Newest(matches func(T) bool) (newest T) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, module := range slices.Backward(r.all) {
		if matches(module) {
			return module
		}
	}
	return newest
}
