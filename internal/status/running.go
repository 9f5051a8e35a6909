package status

import (
	"slices"
	"sync"
)

// Running lists the modules of one kind that are provisioned, in that order. While
// a configuration replaces another, it has the modules of both. Its zero value is ready.
// It is safe for concurrent use.
type Running[T comparable] struct {
	mu  sync.Mutex
	all []T
}

// Add adds a module, as the newest.
func (r *Running[T]) Add(module T) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.all = append(r.all, module)
}

// Remove removes a module, if it is there.
func (r *Running[T]) Remove(module T) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.all = slices.DeleteFunc(r.all, func(other T) bool { return other == module })
}

// Newest returns the module that was added last and that matches, or the
// zero value.
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
