package ratelimit

import (
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"

	"github.com/rgate/rgate/internal/monotime"
)

func TestLimiterAdmitsExactlyTheLimit(t *testing.T) {
	l := newLimiter(defaultMaxKeys)
	for i := range int64(1000) {
		if d := l.take(0, 1, 1, documented); !d.admitted || d.remaining != 999-i || d.after != time.Minute {
			t.Fatalf("request %d: %+v", i+1, d)
		}
	}
	d := l.take(time.Second, 1, 1, documented)
	if want := 59 * time.Second; d.admitted || d.after != want {
		t.Errorf("request 1001: %+v, want it to wait for %v", d, want)
	}
	if d := l.take(time.Second+d.after, 1, 1, documented); !d.admitted || d.remaining != 999 {
		t.Errorf("after the wait: %+v", d)
	}
	if d := l.take(time.Second, 2, 1, documented); d.remaining != 999 {
		t.Errorf("another key: %+v", d)
	}
}

// TestRefusedRequestsCountForNothing checks that a request rejected by one limit does not
// count under another.
func TestRefusedRequestsCountForNothing(t *testing.T) {
	l := newLimiter(defaultMaxKeys)
	few, many := limit{2, time.Second}, limit{5, time.Minute}
	for i, want := range []decision{
		{true, few, 1, time.Second}, {true, few, 0, time.Second},
		{false, few, 0, time.Second}, {false, few, 0, time.Second},
	} {
		if got := l.take(0, 1, 1, few, many); got != want {
			t.Errorf("request %d: got %+v, want %+v", i+1, got, want)
		}
	}
	now := 2 * time.Second
	if got := l.take(now, 1, 2, many, few); got != (decision{true, few, 0, time.Second}) {
		t.Errorf("later: got %+v", got)
	}
	now += 2 * time.Second
	if got := l.take(now, 1, 2, few, many); got.admitted || got.limit != many || got.remaining != 1 {
		t.Errorf("the fifth and sixth: got %+v", got)
	}
	if got := l.take(now, 1, 1, few, many); got != (decision{true, many, 0, 56 * time.Second}) {
		t.Errorf("the fifth: got %+v", got)
	}
	if got := l.take(now, 1, 1); !got.admitted {
		t.Errorf("no limit: got %+v", got)
	}
}

func TestAddCountsWhatWasAdmittedElsewhere(t *testing.T) {
	l := newLimiter(defaultMaxKeys)
	l.add(0, 1, 998, documented)
	l.add(0, 1, 1, documented)
	if d := l.take(0, 1, 1, documented); !d.admitted || d.remaining != 0 {
		t.Errorf("the last: %+v", d)
	}
	l.add(0, 1, 1<<40, documented)
	if d := l.take(0, 1, 1, documented); d.admitted {
		t.Errorf("too many: %+v", d)
	}
}

func TestLimiterIsExactUnderLoad(t *testing.T) {
	l := newLimiter(defaultMaxKeys)
	limits := []limit{documented, {1500, time.Hour}}
	var admitted [8]atomic.Int64
	var clients sync.WaitGroup
	for range 8 {
		clients.Go(func() {
			for i := range 4000 {
				if l.take(monotime.Now(), uint64(i%8), 1, limits...).admitted {
					admitted[i%8].Add(1)
				}
			}
		})
	}
	clients.Wait()
	for key := range admitted {
		if got := admitted[key].Load(); got != 1000 {
			t.Errorf("key %d: %d requests are admitted, want 1000", key, got)
		}
	}
}

// TestLimiterRemembersAMillionKeys checks that each of a million keys keeps its count,
// and that memory does not grow with more keys.
func TestLimiterRemembersAMillionKeys(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a second")
	}
	l := newLimiter(defaultMaxKeys)
	two := limit{2, time.Hour}
	key := func(i int) uint64 { return mix(uint64(i), 1) }
	for i := range defaultMaxKeys {
		l.take(0, key(i), 1, two)
	}
	for i := range defaultMaxKeys {
		if d := l.take(0, key(i), 1, two); !d.admitted || d.remaining != 0 {
			t.Fatalf("key %d: %+v", i, d)
		}
	}
	if size := l.bytes() / defaultMaxKeys; size > 50 {
		t.Errorf("a key takes %d bytes", size)
	}
	before := l.bytes()
	for i := range defaultMaxKeys {
		l.take(0, key(defaultMaxKeys+i), 1, two)
	}
	if n := l.keys.Load(); n > defaultMaxKeys || l.bytes() > before*11/10 {
		t.Errorf("there are %d keys in %d bytes, which were %d", n, l.bytes(), before)
	}
	if l.evicted.Load() == 0 {
		t.Error("no key was evicted out")
	}
}

// bytes returns the memory use of the tables.
func (l *limiter) bytes() (sum int) {
	for i := range l.shards {
		sum += len(l.shards[i].entries) * int(unsafe.Sizeof(entry{}))
	}
	return sum
}

// TestFloodDrivesOutItself checks that a flood of keys does not evict a key near its
// limit.
func TestFloodDrivesOutItself(t *testing.T) {
	l := newLimiter(minMaxKeys)
	random := rand.New(rand.NewPCG(1, 2))
	for key := range uint64(100) {
		l.take(0, mix(key, 1), 1000, documented)
	}
	for range 100_000 {
		l.take(time.Second, random.Uint64(), 1, documented)
	}
	for key := range uint64(100) {
		if l.take(time.Second, mix(key, 1), 1, documented).admitted {
			t.Errorf("key %d has been forgotten", key)
		}
	}
	if n := l.keys.Load(); n != minMaxKeys {
		t.Errorf("there are %d keys", n)
	}
}

// TestLimiterForgets checks that expired entries are reused, and that memory does not
// grow.
func TestLimiterForgets(t *testing.T) {
	l := newLimiter(defaultMaxKeys)
	second := limit{10, time.Second}
	now := time.Duration(0)
	for i := range uint64(200_000) {
		now += 100 * time.Microsecond // 20,000 keys within the two seconds until an entry expires
		l.take(now, mix(i, 1), 1, second)
	}
	if n := l.keys.Load(); n > 40_000 {
		t.Errorf("there are %d keys, of which 20,000 are not worth anything", n)
	}
	if l.evicted.Load() > 0 {
		t.Error("keys were evicted out")
	}
	if size := l.bytes(); size > 40_000*86 {
		t.Errorf("they take %d bytes", size)
	}
}

// TestTableIsAMap compares the table with a map under random insertions and removals.
func TestTableIsAMap(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	s, want := new(shard), make(map[uint64]time.Duration)
	s.rebuild(0, 1000)
	for range 20_000 {
		id := mix(random.Uint64N(300), 1)
		switch random.IntN(3) {
		case 0:
			if at, found := s.find(id); found {
				s.remove(at)
				delete(want, id)
			}
		default:
			if s.keys+1 > len(s.entries)/4*3 {
				s.rebuild(0, 1000)
			}
			at, found := s.find(id)
			if !found {
				s.keys++
			}
			s.entries[at] = entry{id: id, until: time.Duration(1 + random.IntN(100))}
			want[id] = s.entries[at].until
		}
		if s.keys != len(want) {
			t.Fatalf("there are %d keys, want %d", s.keys, len(want))
		}
	}
	for id, until := range want {
		if at, found := s.find(id); !found || s.entries[at].until != until {
			t.Errorf("key %x is lost", id)
		}
	}
	for range 1000 {
		before := s.keys
		if before-s.sweep(50) != s.keys {
			t.Fatal("the number of keys is wrong")
		}
	}
	for id, until := range want {
		if _, found := s.find(id); found != (until > 50) {
			t.Errorf("at 50, key %x until %d: found is %v", id, until, found)
		}
	}
}

func TestUptimeFollowsTheClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		before := monotime.Now()
		time.Sleep(time.Hour)
		if got := monotime.Now() - before; got != time.Hour {
			t.Errorf("an hour took %v", got)
		}
	})
}

func BenchmarkLimiter(b *testing.B) {
	endless := limit{maxRequests, time.Hour}
	b.Run("hot key", func(b *testing.B) {
		l := newLimiter(defaultMaxKeys)
		b.ReportAllocs()
		for b.Loop() {
			l.take(monotime.Now(), 1, 1, endless)
		}
	})
	b.Run("hot key, parallel", func(b *testing.B) {
		l := newLimiter(defaultMaxKeys)
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				l.take(monotime.Now(), 1, 1, endless)
			}
		})
	})
	b.Run("million keys", func(b *testing.B) {
		l := newLimiter(defaultMaxKeys)
		for i := range uint64(defaultMaxKeys) {
			l.take(0, mix(i, 1), 1, endless)
		}
		runtime.GC()
		b.ReportAllocs()
		b.ResetTimer()
		random := rand.New(rand.NewPCG(1, 2))
		for b.Loop() {
			l.take(monotime.Now(), mix(random.Uint64N(defaultMaxKeys), 1), 1, endless)
		}
	})
	b.Run("new keys at the cap", func(b *testing.B) {
		l := newLimiter(defaultMaxKeys)
		for i := range uint64(defaultMaxKeys) {
			l.take(0, mix(i, 1), 1, endless)
		}
		b.ReportAllocs()
		b.ResetTimer()
		n := uint64(defaultMaxKeys)
		for b.Loop() {
			n++
			l.take(monotime.Now(), mix(n, 1), 1, endless)
		}
	})
}
