package gateway

import (
	"sync"
	"time"
)

// budget is how many retries a backend may be sent, so that they do not multiply an
// overload: a share of its requests of the last ten seconds, and a few more for
// backends that have hardly any. It is that of Finagle's RetryBudget; Google's Site
// Reliability Engineering (2016), chapter 21, says why there should be one.
type budget struct {
	ratio    float64
	perSlice int // the few more
	now      func() time.Duration

	mu     sync.Mutex
	slices [10]budgetSlice // Guarded by mu.
	last   int64           // the number of the newest slice. Guarded by mu.
}

// budgetSlice is what happened in one second.
type budgetSlice struct{ requests, retries int }

// request counts a request to the backend. A nil budget has no bound.
func (b *budget) request() {
	if b == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.current().requests++
}

// retry reports whether a request may be sent once more, and counts it if so.
func (b *budget) retry() bool {
	if b == nil {
		return true
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	current := b.current()
	var all budgetSlice
	for _, s := range b.slices {
		all.requests += s.requests
		all.retries += s.retries
	}
	if float64(all.retries+1) > b.ratio*float64(all.requests)+float64(b.perSlice*len(b.slices)) {
		return false
	}
	current.retries++
	return true
}

// current returns the slice of this moment. It must be called with mu held.
func (b *budget) current() *budgetSlice {
	n, now := int64(len(b.slices)), int64(b.now()/time.Second)
	if now-b.last >= n {
		b.slices, b.last = [10]budgetSlice{}, now
	}
	for b.last < now {
		b.last++
		b.slices[b.last%n] = budgetSlice{}
	}
	return &b.slices[b.last%n]
}
