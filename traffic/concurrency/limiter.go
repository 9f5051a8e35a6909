package concurrency

import (
	"slices"
	"sync"
)

// limiter bounds how many requests of a kind are under way at once, and makes those
// that are too many wait for their turn, first come, first served. The requests of
// one key are one lane; lanes know nothing of each other.
//
// It is not x/sync's semaphore, which has no bound on how many wait, cannot tell
// how many do, and does not change its size.
type limiter struct {
	mu    sync.Mutex
	max   int              // Guarded by mu.
	said  []*int           // what each holder says that max shall be. Guarded by mu.
	lanes map[string]*lane // those in use. Guarded by mu.
	spare []*lane          // a few that can be used again. Guarded by mu.

	inFlight, queued int    // in all lanes. Guarded by mu.
	full, outOfTime  uint64 // how many were turned away, and why. Guarded by mu.
}

// lane is the requests of one key.
type lane struct {
	key         string
	inFlight    int // Guarded by limiter.mu, as all that follows.
	queued      int
	first, last *waiter
}

// waiter is a request that waits.
type waiter struct {
	*lane
	turn       chan struct{} // closed when it is its turn
	prev, next *waiter
	waits      bool
}

const maxSpareLanes = 64

func newLimiter() *limiter { return &limiter{lanes: make(map[string]*lane)} }

// hold makes max at most what the holder says until it lets go: a new
// configuration may lower it at once, and raise it when the old one is gone.
func (l *limiter) hold(max int) (letGo func()) {
	said := &max
	change := func(how func()) {
		l.mu.Lock()
		defer l.mu.Unlock()
		how()
		if len(l.said) == 0 {
			return // it stays as it was for the requests that are left
		}
		l.max = *slices.MinFunc(l.said, func(a, b *int) int { return *a - *b })
		for _, one := range l.lanes {
			l.call(one)
		}
	}
	change(func() { l.said = append(l.said, said) })
	return func() {
		change(func() { l.said = slices.DeleteFunc(l.said, func(n *int) bool { return n == said }) })
	}
}

// enter asks for a place in the lane of a key. If there is none, but fewer than
// queue others wait for one, it returns what waits. Else both are nil.
func (l *limiter) enter(key string, queue int) (*lane, *waiter) {
	l.mu.Lock()
	defer l.mu.Unlock()
	one := l.lanes[key]
	if one == nil {
		one = l.open(key)
	}
	if one.inFlight < l.max && one.queued == 0 {
		one.inFlight++
		l.inFlight++
		return one, nil
	}
	if one.queued >= queue {
		l.full++
		l.closeIfUnused(one)
		return nil, nil
	}
	w := &waiter{lane: one, turn: make(chan struct{}), prev: one.last, waits: true}
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

// leave gives a place back. Whoever waits longest gets it.
func (l *limiter) leave(one *lane) {
	l.mu.Lock()
	defer l.mu.Unlock()
	one.inFlight--
	l.inFlight--
	l.call(one)
	l.closeIfUnused(one)
}

// giveUp ends the waiting. If it was the waiter's turn already, it has a place and
// does not give up.
func (l *limiter) giveUp(w *waiter, outOfTime bool) (gaveUp bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !w.waits {
		return false
	}
	l.remove(w)
	if outOfTime {
		l.outOfTime++
	}
	l.closeIfUnused(w.lane)
	return true
}

// call lets those pass for whom there is a place. It must be called with mu held.
func (l *limiter) call(one *lane) {
	for one.first != nil && one.inFlight < l.max {
		w := one.first
		l.remove(w)
		one.inFlight++
		l.inFlight++
		close(w.turn)
	}
}

// remove takes a waiter out of its queue. It must be called with mu held.
func (l *limiter) remove(w *waiter) {
	one := w.lane
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

// open makes the lane of a key. It must be called with mu held.
func (l *limiter) open(key string) *lane {
	var one *lane
	if n := len(l.spare); n > 0 {
		one, l.spare = l.spare[n-1], l.spare[:n-1]
	} else {
		one = new(lane)
	}
	one.key = key
	l.lanes[key] = one
	return one
}

// closeIfUnused forgets a lane with nobody in it. That of requests without a key
// stays. It must be called with mu held.
func (l *limiter) closeIfUnused(one *lane) {
	if one.inFlight > 0 || one.queued > 0 || one.key == "" {
		return
	}
	delete(l.lanes, one.key)
	if len(l.spare) < maxSpareLanes {
		l.spare = append(l.spare, one)
	}
}

// load is how busy a limiter is.
type load struct {
	max, inFlight, queued int
	full, outOfTime       uint64
}

func (l *limiter) look() load {
	l.mu.Lock()
	defer l.mu.Unlock()
	return load{l.max, l.inFlight, l.queued, l.full, l.outOfTime}
}
