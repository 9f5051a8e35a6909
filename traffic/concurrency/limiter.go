package concurrency

import (
	"slices"
	"sync"
)

// limiter limits the number of requests in flight for each key. Further requests wait in a
// queue, first come, first served.
//
// The semaphore of x/sync has no bound on the number of waiting requests, does not expose
// it, and cannot be resized.
type limiter struct {
	mu     sync.Mutex
	max    int               // Guarded by mu.
	limits []*int            // max of each configuration. Guarded by mu.
	queues map[string]*queue // those in use. Guarded by mu.
	spare  []*queue          // some that can be reused. Guarded by mu.

	inFlight, queued int    // of all queues. Guarded by mu.
	full, timedOut   uint64 // rejected requests. Guarded by mu.
}

// queue is the requests of one key: those in flight and those that wait.
type queue struct {
	key         string
	inFlight    int // Guarded by limiter.mu, as all that follows.
	queued      int
	first, last *waiter
}

// waiter is a waiting request.
type waiter struct {
	*queue
	admitted   chan struct{} // closed when it gets a permit
	prev, next *waiter
	waits      bool
}

const maxSpareQueues = 64

func newLimiter() *limiter { return &limiter{queues: make(map[string]*queue)} }

// limit adds the limit of a configuration, until release is called. The lowest one
// applies: a new configuration can lower it at once, and raise it once the old one is
// released.
func (l *limiter) limit(max int) (release func()) {
	own := &max
	change := func(how func()) {
		l.mu.Lock()
		defer l.mu.Unlock()
		how()
		if len(l.limits) == 0 {
			return // max remains for the requests in flight
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

// enter returns the queue of a key with a permit in it. If there is no permit and fewer
// than maxQueued requests wait, it returns a waiter. Otherwise, both are nil.
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

// leave releases a permit. The request that has waited longest gets it.
func (l *limiter) leave(one *queue) {
	l.mu.Lock()
	defer l.mu.Unlock()
	one.inFlight--
	l.inFlight--
	l.admit(one)
	l.closeIfUnused(one)
}

// giveUp ends the waiting. It reports false if the waiter has a permit.
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

// admit gives free permits to waiting requests. It must be called with mu held.
func (l *limiter) admit(one *queue) {
	for one.first != nil && one.inFlight < l.max {
		w := one.first
		l.remove(w)
		one.inFlight++
		l.inFlight++
		close(w.admitted)
	}
}

// remove removes a waiter from its queue. It must be called with mu held.
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

// open creates the queue of a key. It must be called with mu held.
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

// closeIfUnused removes an empty queue, except that of the empty key. It must be called
// with mu held.
func (l *limiter) closeIfUnused(one *queue) {
	if one.inFlight > 0 || one.queued > 0 || one.key == "" {
		return
	}
	delete(l.queues, one.key)
	if len(l.spare) < maxSpareQueues {
		l.spare = append(l.spare, one)
	}
}

// counts are the figures of a limiter.
type counts struct {
	max, inFlight, queued int
	full, timedOut        uint64
}

func (l *limiter) counts() counts {
	l.mu.Lock()
	defer l.mu.Unlock()
	return counts{l.max, l.inFlight, l.queued, l.full, l.timedOut}
}
