package ratelimit

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/rgate/rgate/internal/monotime"
)

// pace is how fast requests of a key may go on, and how many may wait for it.
type pace struct {
	interval time.Duration // between two requests
	ahead    time.Duration // how much earlier a request may be: burst − 1 intervals
	queue    int           // how many may wait
	maxWait  time.Duration // and how long
}

func newPace(l limit, burst int64, queue int, maxWait time.Duration) pace {
	p := pace{interval: (l.window + time.Duration(l.requests) - 1) / time.Duration(l.requests), queue: queue, maxWait: maxWait}
	p.ahead = p.intervals(burst - 1)
	return p
}

// intervals are so many intervals together, or the longest window if they are longer.
func (p *pace) intervals(n int64) time.Duration {
	if n > int64(maxWindow/p.interval) {
		return maxWindow
	}
	return time.Duration(n) * p.interval
}

const (
	laneShards = 16
	maxLanes   = 100_000 // all together; each takes some 150 bytes
	maxWaiting = 10_000  // all together; each has a goroutine and a connection
)

// lanes let requests of each key go on at a pace, in the order in which they came.
//
// When a request may go on is decided by the generic cell rate algorithm (ITU-T
// I.371, annex A), and only when it is first in its lane: if one leaves that waits,
// all behind it move up.
type lanes struct {
	hasher
	now     func() time.Duration
	waiting atomic.Int64
	delayed atomic.Uint64 // requests that have waited, and went on
	shards  [laneShards]laneShard
}

type laneShard struct {
	mu    sync.Mutex
	lanes map[uint64]*lane // Guarded by mu, and so are the lanes.
}

// lane is the requests of one key.
type lane struct {
	next       time.Duration // when a request is due: the algorithm's theoretical arrival time
	pace       pace
	head, tail *waiter
	waiting    int
	timer      *time.Timer // fires when the head may go on; nil until one has waited
}

// waiter is a request that waits.
type waiter struct {
	turn           chan struct{} // closed when it may go on
	before, behind *waiter
	shard          *laneShard
	lane           *lane // nil once it does not wait any more
}

func newLanes() *lanes { return &lanes{hasher: newHasher(), now: monotime.Now} }

// enter asks for a request to go on. If it may at once, there is no waiter; else its
// waiter's turn comes, unless it leaves. If there is no room, or the turn would come
// too late, it is not ok, and may try again after some time.
func (l *lanes) enter(key uint64, p pace) (w *waiter, after time.Duration, ok bool) {
	s := &l.shards[key%laneShards]
	s.mu.Lock()
	defer s.mu.Unlock()
	now := l.now()
	ln := s.lanes[key]
	if ln == nil {
		if ln = s.open(now, key); ln == nil {
			return nil, p.interval, false
		}
	}
	ln.pace = p
	wait := max(0, ln.next-p.ahead-now) // of the head
	if ln.head == nil && wait == 0 {
		ln.advance(now)
		return nil, 0, true
	}
	if ln.waiting >= p.queue || l.waiting.Load() >= maxWaiting {
		return nil, max(wait, 1), false
	}
	if all := wait + p.intervals(int64(ln.waiting)); all > p.maxWait {
		return nil, all - p.maxWait, false
	}
	w = &waiter{turn: make(chan struct{}), before: ln.tail, shard: s, lane: ln}
	if ln.tail = w; w.before == nil {
		ln.head = w
		l.arm(s, ln, wait)
	} else {
		w.before.behind = w
	}
	ln.waiting++
	l.waiting.Add(1)
	return w, 0, true
}

// leave takes a waiter out of its lane, if its turn has not come.
func (l *lanes) leave(w *waiter) {
	w.shard.mu.Lock()
	defer w.shard.mu.Unlock()
	if w.lane != nil {
		l.remove(w)
	}
}

func (l *lanes) remove(w *waiter) {
	ln := w.lane
	if w.before == nil {
		ln.head = w.behind
	} else {
		w.before.behind = w.behind
	}
	if w.behind == nil {
		ln.tail = w.before
	} else {
		w.behind.before = w.before
	}
	w.lane = nil
	ln.waiting--
	l.waiting.Add(-1)
}

// arm has release called when the head of a lane may go on.
func (l *lanes) arm(s *laneShard, ln *lane, wait time.Duration) {
	if ln.timer == nil {
		ln.timer = time.AfterFunc(wait, func() { l.release(s, ln) })
	} else {
		ln.timer.Reset(wait)
	}
}

// release lets those go on whose turn has come.
func (l *lanes) release(s *laneShard, ln *lane) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := l.now()
	for ln.head != nil {
		if wait := ln.next - ln.pace.ahead - now; wait > 0 {
			l.arm(s, ln, wait)
			return
		}
		ln.advance(now)
		w := ln.head
		l.remove(w)
		l.delayed.Add(1)
		close(w.turn)
	}
}

// advance counts a request that goes on.
func (ln *lane) advance(now time.Duration) { ln.next = max(ln.next, now) + ln.pace.interval }

// open makes a lane, and closes others that are not worth anything: each new one
// looks at two old ones. It returns nil if there are too many in all of which
// requests wait.
func (s *laneShard) open(now time.Duration, key uint64) *lane {
	if s.lanes == nil {
		s.lanes = make(map[uint64]*lane)
	}
	looks := 2
	if len(s.lanes) >= maxLanes/laneShards {
		looks = 8
	}
	var least *lane
	var leastKey uint64
	for k, ln := range s.lanes { // begins anywhere
		if ln.head == nil && ln.next <= now {
			delete(s.lanes, k)
		} else if ln.head == nil && (least == nil || ln.next < least.next) {
			least, leastKey = ln, k
		}
		if looks--; looks == 0 {
			break
		}
	}
	if len(s.lanes) >= maxLanes/laneShards {
		if least == nil {
			return nil
		}
		delete(s.lanes, leastKey)
	}
	ln := new(lane)
	s.lanes[key] = ln
	return ln
}
