package concurrency

import (
	"slices"
	"sync"
)

// limiter limits the number of requests in flight for each key. Further requests wait in
// a FIFO queue.
//
// Package semaphore of golang.org/x/sync does not limit or expose the number of waiting
// requests, and cannot be resized.
type limiter struct {
	mu     sync.Mutex
	max    int               // Guarded by mu.
	limits []*int            // max of each active configuration. Guarded by mu.
	queues map[string]*queue // queues in use by key. Guarded by mu.
	spare  []*queue          // unused queues for reuse. Guarded by mu.

	inFlight, queued int    // totals over all queues. Guarded by mu.
	full, timedOut   uint64 // numbers of rejected requests. Guarded by mu.
}

// queue holds the requests of a key: the number in flight and the list of waiters.
type queue struct {
	key         string
	inFlight    int // Guarded by limiter.mu, like the following fields.
	queued      int
	first, last *waiter
}

// waiter is a waiting request.
type waiter struct {
	*queue
	admitted   chan struct{} // closed when the request gets a permit
	prev, next *waiter
	waits      bool
}

const maxSpareQueues = 64

func newLimiter() *limiter { return &limiter{queues: make(map[string]*queue)} }

// limit adds the limit of a configuration until release is called. The lowest limit
// applies. A new configuration lowers the limit immediately, and raises it when the old
// configuration is released.
func (l *limiter) limit(max int) (release func()) {
	own := &max
	change := func(how func()) {
		l.mu.Lock()
		defer l.mu.Unlock()
		how()
		if len(l.limits) == 0 {
			return // keep max for the remaining requests in flight
		}
		l.max = *slices.MinFunc(l.limits, func(a, b *int) int { return *a - *b })
		for _, q := range l.queues {
			l.admit(q)
		}
	}
	change(func() { l.limits = append(l.limits, own) })
	return func() {
		change(func() { l.limits = slices.DeleteFunc(l.limits, func(n *int) bool { return n == own }) })
	}
}

// enter acquires a permit and returns its queue. If there is no permit and fewer than
// maxQueued requests wait, it returns a waiter. Otherwise it returns nil, nil.
func (l *limiter) enter(key string, maxQueued int) (*queue, *waiter) {
	l.mu.Lock()
	defer l.mu.Unlock()
	one := l.queues[key]
	if one == nil {
		one = l.open(key)
	}
	if one.inFlight < l.max && one.queued == 0 {
		one.inFlight++
		l.inFlight++
		return one, nil
	}
	if one.queued >= maxQueued {
		l.full++
		l.closeIfUnused(one)
		return nil, nil
	}
	w := &waiter{queue: one, admitted: make(chan struct{}), prev: one.last, waits: true}
	if one.last == nil {
		one.first = w
	} else {
		one.last.next = w
	}
	one.last = w
	one.queued++
	l.queued++
	return nil, w
}

// leave releases a permit. The request that has waited longest gets the permit.
func (l *limiter) leave(one *queue) {
	l.mu.Lock()
	defer l.mu.Unlock()
	one.inFlight--
	l.inFlight--
	l.admit(one)
	l.closeIfUnused(one)
}

// giveUp removes a waiter from its queue. It returns false if the waiter already has a
// permit.
func (l *limiter) giveUp(w *waiter, timedOut bool) (gaveUp bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !w.waits {
		return false
	}
	l.remove(w)
	if timedOut {
		l.timedOut++
	}
	l.closeIfUnused(w.queue)
	return true
}

// admit gives free permits to waiting requests. The caller must hold mu.
func (l *limiter) admit(one *queue) {
	for one.first != nil && one.inFlight < l.max {
		w := one.first
		l.remove(w)
		one.inFlight++
		l.inFlight++
		close(w.admitted)
	}
}

// remove removes a waiter from its queue. The caller must hold mu.
func (l *limiter) remove(w *waiter) {
	one := w.queue
	if w.prev == nil {
		one.first = w.next
	} else {
		w.prev.next = w.next
	}
	if w.next == nil {
		one.last = w.prev
	} else {
		w.next.prev = w.prev
	}
	w.prev, w.next, w.waits = nil, nil, false
	one.queued--
	l.queued--
}

// open creates the queue of a key. The caller must hold mu.
func (l *limiter) open(key string) *queue {
	var one *queue
	if n := len(l.spare); n > 0 {
		one, l.spare = l.spare[n-1], l.spare[:n-1]
	} else {
		one = new(queue)
	}
	one.key = key
	l.queues[key] = one
	return one
}

// closeIfUnused removes an empty queue, except the queue of the empty key. The caller
// must hold mu.
func (l *limiter) closeIfUnused(one *queue) {
	if one.inFlight > 0 || one.queued > 0 || one.key == "" {
		return
	}
	delete(l.queues, one.key)
	if len(l.spare) < maxSpareQueues {
		l.spare = append(l.spare, one)
	}
}

// counts holds statistics of a limiter.
type counts struct {
	max, inFlight, queued int
	full, timedOut        uint64
}

func (l *limiter) counts() counts {
	l.mu.Lock()
	defer l.mu.Unlock()
	return counts{l.max, l.inFlight, l.queued, l.full, l.timedOut}
}
