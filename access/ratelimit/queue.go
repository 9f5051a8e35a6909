package ratelimit

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/rgate/rgate/internal/monotime"
)

// rate is the speed at which requests of a key continue, and the limits of its queue.
type rate struct {
	interval time.Duration // between two requests
	ahead    time.Duration // how much earlier a request may be: burst − 1 intervals
	queue    int           // how many may wait
	maxWait  time.Duration // and how long
}

func newRate(l limit, burst int64, queue int, maxWait time.Duration) rate {
	p := rate{interval: (l.window + time.Duration(l.requests) - 1) / time.Duration(l.requests), queue: queue, maxWait: maxWait}
	p.ahead = p.intervals(burst - 1)
	return p
}

// intervals returns the duration of n intervals, at most the longest window.
func (p *rate) intervals(n int64) time.Duration {
	if n > int64(maxWindow/p.interval) {
		return maxWindow
	}
	return time.Duration(n) * p.interval
}

const (
	queueShards = 16
	maxQueues   = 100_000 // all together; each takes some 150 bytes
	maxWaiting  = 10_000  // all together; each has a goroutine and a connection
)

// queues delay the requests of each key to a rate, in order of arrival.
//
// The generic cell rate algorithm (ITU-T I.371, annex A) decides when the first request in
// a queue continues. If a waiting request is canceled, those behind it move up.
type queues struct {
	hasher
	now     func() time.Duration
	waiting atomic.Int64
	delayed atomic.Uint64 // requests that have continued after a delay
	shards  [queueShards]queueShard
}

type queueShard struct {
	mu     sync.Mutex
	queues map[uint64]*queue // Guarded by mu, and so are the queues.
}

// queue has the waiting requests of one key.
type queue struct {
	next       time.Duration // when a request is due: the algorithm's theoretical arrival time
	rate       rate
	head, tail *waiter
	waiting    int
	timer      *time.Timer // fires when the head may go on; nil until one has waited
}

// waiter is a waiting request.
type waiter struct {
	turn           chan struct{} // closed when the request continues
	before, behind *waiter
	shard          *queueShard
	queue          *queue // nil once it does not wait any more
}

func newQueues() *queues { return &queues{hasher: newHasher(), now: monotime.Now} }

// enter admits a request. Without a waiter, it continues at once; otherwise when its turn
// comes, unless it leaves. It is not ok if the queue is full or the delay too long; it can
// be repeated after some time.
func (l *queues) enter(key uint64, p rate) (w *waiter, after time.Duration, ok bool) {
	s := &l.shards[key%queueShards]
	s.mu.Lock()
	defer s.mu.Unlock()
	now := l.now()
	q := s.queues[key]
	if q == nil {
		if q = s.open(now, key); q == nil {
			return nil, p.interval, false
		}
	}
	q.rate = p
	wait := max(0, q.next-p.ahead-now) // of the head
	if q.head == nil && wait == 0 {
		q.advance(now)
		return nil, 0, true
	}
	if q.waiting >= p.queue || l.waiting.Load() >= maxWaiting {
		return nil, max(wait, 1), false
	}
	if all := wait + p.intervals(int64(q.waiting)); all > p.maxWait {
		return nil, all - p.maxWait, false
	}
	w = &waiter{turn: make(chan struct{}), before: q.tail, shard: s, queue: q}
	if q.tail = w; w.before == nil {
		q.head = w
		l.arm(s, q, wait)
	} else {
		w.before.behind = w
	}
	q.waiting++
	l.waiting.Add(1)
	return w, 0, true
}

// leave removes a waiter from its queue, if its turn has not come.
func (l *queues) leave(w *waiter) {
	w.shard.mu.Lock()
	defer w.shard.mu.Unlock()
	if w.queue != nil {
		l.remove(w)
	}
}

func (l *queues) remove(w *waiter) {
	q := w.queue
	if w.before == nil {
		q.head = w.behind
	} else {
		w.before.behind = w.behind
	}
	if w.behind == nil {
		q.tail = w.before
	} else {
		w.behind.before = w.before
	}
	w.queue = nil
	q.waiting--
	l.waiting.Add(-1)
}

// arm schedules release for when the head of a queue can continue.
func (l *queues) arm(s *queueShard, q *queue, wait time.Duration) {
	if q.timer == nil {
		q.timer = time.AfterFunc(wait, func() { l.release(s, q) })
	} else {
		q.timer.Reset(wait)
	}
}

// release lets the waiters whose turn has come continue.
func (l *queues) release(s *queueShard, q *queue) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := l.now()
	for q.head != nil {
		if wait := q.next - q.rate.ahead - now; wait > 0 {
			l.arm(s, q, wait)
			return
		}
		q.advance(now)
		w := q.head
		l.remove(w)
		l.delayed.Add(1)
		close(w.turn)
	}
}

// advance counts a request that continues.
func (q *queue) advance(now time.Duration) { q.next = max(q.next, now) + q.rate.interval }

// open adds a queue. It looks at a few others and removes those that have no effect any
// more. It returns nil if there are too many, with requests waiting in all of those.
func (s *queueShard) open(now time.Duration, key uint64) *queue {
	if s.queues == nil {
		s.queues = make(map[uint64]*queue)
	}
	looks := 2
	if len(s.queues) >= maxQueues/queueShards {
		looks = 8
	}
	var least *queue
	var leastKey uint64
	for k, q := range s.queues { // begins anywhere
		if q.head == nil && q.next <= now {
			delete(s.queues, k)
		} else if q.head == nil && (least == nil || q.next < least.next) {
			least, leastKey = q, k
		}
		if looks--; looks == 0 {
			break
		}
	}
	if len(s.queues) >= maxQueues/queueShards {
		if least == nil {
			return nil
		}
		delete(s.queues, leastKey)
	}
	q := new(queue)
	s.queues[key] = q
	return q
}
