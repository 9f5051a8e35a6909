package ratelimit

import (
	"math"
	"math/bits"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"
)

const (
	// The default and the minimum of max_keys.
	defaultMaxKeys = 1_000_000
	minMaxKeys     = 1_000

	maxShards    = 256
	keysPerShard = 1024 // minimum, so that shards fill evenly
	minEntries   = 16

	sweptPerInsert = 4 // entries checked for expiry per insertion
	evictionSample = 8 // candidates for an eviction
)

// limiter counts the requests of many keys under any number of limits. A request that one
// limit rejects is counted under none.
//
// An entry takes 32 bytes. A growing table takes up to 2⅔ times the size of its entries.
// With the default of a million keys, a full table takes 48 MB. It then evicts one key for
// each new key: an expired one or, among a few candidates, the least used one. A flood of
// keys therefore evicts mostly its own keys, and hardly ever a key near its limit.
//
// Keys are identified by their hashes; see hasher.
type limiter struct {
	hasher
	max      int64
	keys     atomic.Int64
	evicted  atomic.Uint64 // keys evicted because the table was full
	shards   []shard
	mask     uint64
	fullSize int // entries of a shard with its full share of the keys
}

// newLimiter returns a limiter for at most maxKeys keys.
func newLimiter(maxKeys int) *limiter {
	maxKeys = max(maxKeys, minMaxKeys)
	shards := 1 << (bits.Len(uint(min(maxKeys/keysPerShard, maxShards)|1)) - 1)
	return &limiter{
		hasher: newHasher(), max: int64(maxKeys),
		shards: make([]shard, shards), mask: uint64(shards - 1),
		fullSize: maxKeys / shards * 3 / 2,
	}
}

// take checks a request against the limits and counts it if it is admitted. Counts are
// kept per key and window, so the limits must have different windows. Without limits,
// every request is admitted.
func (l *limiter) take(now time.Duration, key uint64, cost int64, limits ...limit) decision {
	s := &l.shards[key&l.mask]
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(limits) == 1 { // avoids a second lookup
		id := entryKey(key, limits[0])
		var c counter
		at, found := s.load(&c, id, now, limits[0].window)
		d := limits[0].judge(&c, now, cost)
		if d.admitted {
			c.add(now, cost)
			l.store(s, at, found, now, id, &c, limits[0].window)
		}
		return d
	}
	d := decision{admitted: true}
	for i, limit := range limits {
		var c counter
		s.load(&c, entryKey(key, limit), now, limit.window)
		one := limit.judge(&c, now, cost)
		if i == 0 {
			d = one
		} else {
			d = d.and(one)
		}
	}
	if d.admitted {
		l.count(s, now, key, cost, limits)
	}
	return d
}

// peek checks a request without counting it.
func (l *limiter) peek(now time.Duration, key uint64, cost int64, limits ...limit) (d decision) {
	s := &l.shards[key&l.mask]
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, limit := range limits {
		var c counter
		s.load(&c, entryKey(key, limit), now, limit.window)
		if one := limit.judge(&c, now, cost); i == 0 {
			d = one
		} else {
			d = d.and(one)
		}
	}
	return d
}

// add counts a request that was admitted elsewhere, such as in Redis.
func (l *limiter) add(now time.Duration, key uint64, cost int64, limits ...limit) {
	s := &l.shards[key&l.mask]
	s.mu.Lock()
	defer s.mu.Unlock()
	l.count(s, now, key, cost, limits)
}

func (l *limiter) count(s *shard, now time.Duration, key uint64, cost int64, limits []limit) {
	for _, limit := range limits {
		id := entryKey(key, limit)
		var c counter
		at, found := s.load(&c, id, now, limit.window)
		c.add(now, cost)
		l.store(s, at, found, now, id, &c, limit.window)
	}
}

// store stores a counter at the position that load returned.
func (l *limiter) store(s *shard, at int, found bool, now time.Duration, id uint64, c *counter, window time.Duration) {
	if !found {
		l.makeRoom(s, now)
		at, _ = s.find(id)
		s.keys++
	}
	shift := unit(window)
	s.entries[at] = entry{id, c.begin + 2*window, c.current.pack(shift), c.previous.pack(shift)}
}

// makeRoom frees an entry in a shard for another key.
func (l *limiter) makeRoom(s *shard, now time.Duration) {
	l.keys.Add(int64(-s.sweep(now)))
	if l.keys.Add(1) > l.max {
		if s.evict(now) { // a shard is empty only if hashes are not random
			l.keys.Add(-1)
			l.evicted.Add(1)
		}
	}
	if s.keys+1 > len(s.entries)/4*3 {
		l.keys.Add(int64(-s.rebuild(now, l.fullSize)))
	}
}

// shard holds a part of the keys. It is a hash table with open addressing and linear
// probing, and at most three quarters of its entries are in use.
type shard struct {
	mu      sync.Mutex
	entries []entry // Guarded by mu, like the other fields.
	keys    int
	hand    int // position of the next sweep

	_ [64 - unsafe.Sizeof(sync.Mutex{}) - unsafe.Sizeof([]entry{}) - 2*unsafe.Sizeof(0)]byte // pads the shard to a cache line
}

// entry is a counter in a table. The entry is empty if until is 0.
type entry struct {
	id                uint64        // hash of the key and the window
	until             time.Duration // expiry: two windows after the start of the counter's window
	current, previous packed
}

// packed is a bucket whose time is stored in 32 bits; see unit.
type packed struct{ count, last uint32 }

// entryKey returns the ID of the counter for a key and a window.
func entryKey(key uint64, limit limit) uint64 { return mix(key, uint64(limit.window)) }

// load reads the counter of a key and a window at a given time. It returns the result of
// find.
func (s *shard) load(c *counter, id uint64, now, window time.Duration) (at int, found bool) {
	at, found = s.find(id)
	if !found {
		c.begin = now
		return at, found
	}
	entry, shift := &s.entries[at], unit(window)
	c.begin, c.current, c.previous = entry.until-2*window, entry.current.unpack(shift), entry.previous.unpack(shift)
	c.roll(now, window)
	return at, found
}

// unit returns the number of bits by which times are shifted so that a window fits in 32
// bits.
func unit(window time.Duration) int { return max(0, bits.Len64(uint64(window))-32) }

func (b bucket) pack(shift int) packed {
	return packed{b.count, uint32(min((b.last+1<<shift-1)>>shift, math.MaxUint32))} // rounded up
}

func (p packed) unpack(shift int) bucket { return bucket{p.count, time.Duration(p.last) << shift} }

// homeIndex returns the preferred position of a key in a table.
func homeIndex(id uint64, entries int) int {
	at, _ := bits.Mul64(id, uint64(entries)) // Lemire, "Fast random integer generation in an interval", 2019
	return int(at)
}

// find returns the position of a key, or the position for its insertion if it is absent.
func (s *shard) find(id uint64) (at int, found bool) {
	if len(s.entries) == 0 {
		return 0, false
	}
	for at = homeIndex(id, len(s.entries)); s.entries[at].until != 0; at = s.next(at) {
		if s.entries[at].id == id {
			return at, true
		}
	}
	return at, false
}

func (s *shard) next(at int) int {
	if at++; at == len(s.entries) {
		return 0
	}
	return at
}

// remove empties an entry and closes the gap (Knuth, The Art of Computer Programming,
// volume 3, algorithm 6.4 R).
func (s *shard) remove(gap int) {
	size := len(s.entries)
	distance := func(from, to int) int {
		if to < from {
			return to - from + size
		}
		return to - from
	}
	for at := s.next(gap); s.entries[at].until != 0; at = s.next(at) {
		if distance(homeIndex(s.entries[at].id, size), at) >= distance(gap, at) {
			s.entries[gap] = s.entries[at]
			gap = at
		}
	}
	s.entries[gap] = entry{}
	s.keys--
}

// sweep removes expired keys among a few entries and returns their number.
func (s *shard) sweep(now time.Duration) (forgotten int) {
	for range min(sweptPerInsert, len(s.entries)) {
		if until := s.entries[s.hand].until; until != 0 && until <= now {
			s.remove(s.hand) // remove may have moved another entry here
			forgotten++
		} else {
			s.hand = s.next(s.hand)
		}
	}
	return forgotten
}

// evict removes one of the next few keys. It prefers an expired key, then the least used
// key, and among equally used keys the one that expires first.
func (s *shard) evict(now time.Duration) bool {
	if s.keys == 0 {
		return false
	}
	victim := -1
	for seen := 0; seen < min(evictionSample, s.keys); s.hand = s.next(s.hand) {
		candidate := &s.entries[s.hand]
		if candidate.until == 0 {
			continue
		}
		seen++
		if candidate.until <= now {
			victim = s.hand
			break
		}
		if victim < 0 || candidate.lessUsed(&s.entries[victim]) {
			victim = s.hand
		}
	}
	s.remove(victim)
	return true
}

func (s *entry) lessUsed(than *entry) bool {
	used := uint64(s.current.count) + uint64(s.previous.count)
	other := uint64(than.current.count) + uint64(than.previous.count)
	return used < other || used == other && s.until < than.until
}

// rebuild resizes the table for the unexpired keys and one more key. It returns the
// number of expired keys.
func (s *shard) rebuild(now time.Duration, fullSize int) (forgotten int) {
	live := 0
	for i := range s.entries {
		if s.entries[i].until > now {
			live++
		}
	}
	size := max(minEntries, (live+1)*8/3) // three eighths in use
	if size > fullSize && live < fullSize/8*5 {
		size = fullSize // the maximum size
	}
	old := s.entries
	forgotten = s.keys - live
	s.entries, s.keys, s.hand = make([]entry, size), live, 0
	for i := range old {
		if old[i].until > now {
			at, _ := s.find(old[i].id)
			s.entries[at] = old[i]
		}
	}
	return forgotten
}
