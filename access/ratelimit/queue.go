package ratelimit

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/rgate/rgate/internal/monotime"
)

// rate is the rate at which requests of a key continue, with the limits of its queue.
type rate struct {
	interval time.Duration // interval between two requests
	ahead    time.Duration // how early a request may arrive: burst − 1 intervals
	queue    int           // maximum number of waiting requests
	maxWait  time.Duration // maximum delay
}

func newRate(l limit, burst int64, queue int, maxWait time.Duration) rate {
	p := rate{interval: (l.window + time.Duration(l.requests) - 1) / time.Duration(l.requests), queue: queue, maxWait: maxWait}
	p.ahead = p.intervals(burst - 1)
	return p
}

// intervals returns the duration of n intervals, capped at the longest window.
func (p *rate) intervals(n int64) time.Duration {
	if n > int64(maxWindow/p.interval) {
		return maxWindow
	}
	return time.Duration(n) * p.interval
}

const (
	queueShards = 16
	maxQueues   = 100_000 // in total; each takes about 150 bytes
	maxWaiting  = 10_000  // in total; each holds a goroutine and a connection
)

// queues delays the requests of each key to a rate, in order of arrival.
//
// The generic cell rate algorithm (ITU-T I.371, annex A) determines when the first
// request in a queue continues. If a waiting request is canceled, the requests behind it
// move up.
type queues struct {
	hasher
	now     func() time.Duration
	waiting atomic.Int64
	delayed atomic.Uint64 // requests that continued after a delay
	shards  [queueShards]queueShard
}

type queueShard struct {
	mu     sync.Mutex
	queues map[uint64]*queue // Guarded by mu, including the queues.
}

// queue holds the waiting requests of one key.
type queue struct {
	next       time.Duration // the theoretical arrival time of the algorithm
	rate       rate
	head, tail *waiter
	waiting    int
	timer      *time.Timer // fires when the head may continue; nil until a request has waited
}

// waiter is a waiting request.
type waiter struct {
	turn           chan struct{} // closed when the request may continue
	before, behind *waiter
	shard          *queueShard
	queue          *queue // nil if the request no longer waits
}

func newQueues() *queues { return &queues{hasher: newHasher(), now: monotime.Now} }

// enter admits or queues a request. If ok is true and w is nil, the request continues
// immediately. If w is not nil, the caller must wait for w.turn or call leave. ok is
// false if the queue is full or the delay is too long; after is the time until a retry.
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
	wait := max(0, q.next-p.ahead-now) // until the head continues
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

// leave removes a waiter from its queue unless its turn has come.
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

// arm schedules release for the time at which the head of a queue can continue.
func (l *queues) arm(s *queueShard, q *queue, wait time.Duration) {
	if q.timer == nil {
		q.timer = time.AfterFunc(wait, func() { l.release(s, q) })
	} else {
		q.timer.Reset(wait)
	}
}

// release wakes the waiters whose turn has come.
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

// advance records that a request continues.
func (q *queue) advance(now time.Duration) { q.next = max(q.next, now) + q.rate.interval }

// open adds a queue and removes a few queues that no longer have an effect. It returns
// nil if there are too many queues and all examined ones have waiting requests.
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
	for k, q := range s.queues { // in random order
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
