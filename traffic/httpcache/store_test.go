package httpcache

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// fresh is the freshness of entries in tests.
var fresh = Freshness{Born: time.Now(), Lifetime: time.Hour}

func keyFor(path string) Key { return AppendKey(nil, "http", "a.example", path, "") }

// save stores a response to a request. header alternates names and values.
func save(s *Store, key Key, body string, request http.Header, header ...string) bool {
	h := make(http.Header)
	for i := 0; i+1 < len(header); i += 2 {
		h.Add(header[i], header[i+1])
	}
	f := s.Begin(key)
	defer f.End()
	now := time.Now()
	e := NewEntry(fresh, &Response{200, h, now, now}, nil, nil)
	return f.Record(now, int64(len(body))) && f.Write([]byte(body), 1<<30) && f.Store(e, &Request{Header: request})
}

func body(s *Store, key Key, request http.Header) string {
	if e, _ := s.Get(key, &Request{Header: request}); e != nil {
		return string(e.Body)
	}
	return ""
}

// check compares the statistics of a store with its entries.
func check(t *testing.T, s *Store) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	var bytes, count int64
	for e := s.newest; e != nil; e = e.older {
		if e.older == nil && s.oldest != e || e.older != nil && e.older.newer != e {
			t.Fatal("the list of entries is broken")
		}
		if e.owner == nil || e.owner.at(e.variant) != e {
			t.Fatal("an entry is not among its variants")
		}
		bytes, count = bytes+e.size, count+1
	}
	inVariants, inURLs := 0, 0
	for _, f := range s.byKey {
		inVariants += len(f.entries())
	}
	for url, f := range s.byURL {
		for ; f != nil; f = f.next {
			if f.url != url {
				t.Fatalf("%s is listed under %s", f.url, url)
			}
			inURLs++
		}
	}
	if bytes != s.bytes || count != s.count || inVariants != int(count) || inURLs != len(s.byKey) {
		t.Fatalf("there are %d entries (%d in variants) of %d bytes; the statistics are %d of %d; %d URLs for %d keys",
			count, inVariants, bytes, s.count, s.bytes, inURLs, len(s.byKey))
	}
	if s.bytes+s.reserved > s.most || s.reserved < 0 {
		t.Fatalf("%d and %d bytes are above %d", s.bytes, s.reserved, s.most)
	}
}

func TestStore(t *testing.T) {
	s := NewStore(1 << 20)
	if !save(s, keyFor("/a"), "a", nil, "Etag", `"1"`) {
		t.Fatal("not stored")
	}
	if got := body(s, keyFor("/a"), nil); got != "a" {
		t.Errorf("got %q", got)
	}
	if e, others := s.Get(keyFor("/b"), new(Request)); e != nil || others {
		t.Error("there is an entry for another URL")
	}
	save(s, keyFor("/a"), "b", nil)
	if got := body(s, keyFor("/a"), nil); got != "b" {
		t.Errorf("got %q after it was replaced", got)
	}
	check(t, s)
	s.SetMost(100)
	if s.Stats().Entries != 0 {
		t.Error("the store exceeds its bound")
	}
	if save(s, keyFor("/a"), "a", nil) {
		t.Error("stored a response above the bound")
	}
	check(t, s)
}

// After random operations, the statistics are correct and the limit is respected.
func TestStoreStaysConsistent(t *testing.T) {
	s := NewStore(256 << 10)
	random := rand.New(rand.NewPCG(1, 2))
	for i := range 20000 {
		path := "/" + strconv.Itoa(random.IntN(60))
		key := append(keyFor(path), byte(random.IntN(3)))
		request := http.Header{"X-A": {strconv.Itoa(random.IntN(4))}}
		switch random.IntN(12) {
		case 0:
			s.Invalidate("http://a.example" + path)
		case 1:
			s.Purge(Purge{Prefix: path})
		case 2:
			s.Purge(Purge{Tag: "t" + strconv.Itoa(random.IntN(50))})
		case 3:
			if e, _ := s.Get(key, &Request{Header: request}); e != nil {
				now := time.Now()
				fresh, _, _ := e.Validated(new(Options), new(Request), &Response{304, http.Header{"X-B": {"c"}}, now, now})
				s.Replace(e, fresh, &Request{Header: request})
			}
		case 4:
			if e, _ := s.Get(key, &Request{Header: request}); e != nil {
				s.Remove(e)
				s.Remove(e)
			}
		case 5:
			s.SetMost(int64(128+random.IntN(256)) << 10)
		default:
			vary := [][]string{{}, {"Vary", "X-A"}, {"Vary", "X-A, X-B"}}[random.IntN(3)]
			save(s, key, strings.Repeat("x", random.IntN(20000)), request, append(vary, "Cache-Tag", "t"+strconv.Itoa(i%50))...)
		}
		if i%100 == 0 {
			check(t, s)
		}
	}
	s.Purge(Purge{})
	check(t, s)
	if stats := s.Stats(); stats.Bytes != 0 || stats.Entries != 0 || len(s.byKey)+len(s.byURL)+len(s.fetches) != 0 {
		t.Errorf("something is left: %+v", stats)
	}
}

// Responses that are requested once do not evict popular responses.
func TestScansEvictNothing(t *testing.T) {
	s := NewStore(1 << 20)
	for i := range 20 {
		save(s, keyFor("/hot/"+strconv.Itoa(i)), strings.Repeat("x", 10000), nil)
	}
	for i := range 5000 {
		save(s, keyFor("/once/"+strconv.Itoa(i)), strings.Repeat("x", 10000), nil)
		if got := body(s, keyFor("/hot/"+strconv.Itoa(i%20)), nil); got == "" {
			t.Fatalf("a frequent response is evicted after %d others", i)
		}
	}
	check(t, s)
}

func TestVariants(t *testing.T) {
	s := NewStore(1 << 20)
	en, de := http.Header{"Accept-Language": {"en"}}, http.Header{"Accept-Language": {"de"}}
	save(s, keyFor("/"), "en", en, "Vary", "accept-language")
	if e, others := s.Get(keyFor("/"), &Request{Header: de}); e != nil || !others {
		t.Error("a request in another language does not miss a variant")
	}
	save(s, keyFor("/"), "de", de, "Vary", "accept-language")
	if body(s, keyFor("/"), en) != "en" || body(s, keyFor("/"), de) != "de" {
		t.Error("variants are mixed up")
	}
	save(s, keyFor("/"), "all", de)
	if got := body(s, keyFor("/"), http.Header{}); got != "all" {
		t.Errorf("got %q", got)
	}
	if n := s.Invalidate("http://a.example/"); n != 3 {
		t.Errorf("%d variants were removed", n)
	}
	check(t, s)
}

// A response requested before an invalidation is not stored afterwards.
func TestFetchesAreInvalidated(t *testing.T) {
	for what, purge := range map[string]func(*Store){
		"invalidation":   func(s *Store) { s.Invalidate("http://a.example/a") },
		"purge by URL":   func(s *Store) { s.Purge(Purge{URL: "/a"}) },
		"purge by start": func(s *Store) { s.Purge(Purge{Prefix: "http://a.example/"}) },
		"purge by tag":   func(s *Store) { s.Purge(Purge{Tag: "x"}) },
		"purge of all":   func(s *Store) { s.Purge(Purge{}) },
	} {
		s := NewStore(1 << 20)
		now := time.Now()
		f, other := s.Begin(keyFor("/a")), s.Begin(keyFor("/b"))
		e := NewEntry(fresh, &Response{200, http.Header{}, now, now}, nil, nil)
		if !f.Record(now, -1) || !f.Write([]byte("old"), 100) {
			t.Fatal("cannot record")
		}
		purge(s)
		if f.Store(e, new(Request)) {
			t.Errorf("%s: the response to an earlier request is stored", what)
		}
		if what == "invalidation" && !other.Record(now, -1) {
			t.Errorf("%s: another URL is invalidated", what)
		}
		after := s.Begin(keyFor("/a"))
		if !after.Record(now, -1) || !after.Write([]byte("new"), 100) || !after.Store(NewEntry(fresh, &Response{200, http.Header{}, now, now}, nil, nil), new(Request)) {
			t.Errorf("%s: the response to a later request is not stored", what)
		}
		for _, f := range []*Fetch{f, other, after} {
			f.End()
		}
		check(t, s)
		if len(s.fetches) != 0 {
			t.Errorf("%s: fetches are left", what)
		}
	}
}

func TestOneFetchRecordsAtATime(t *testing.T) {
	s := NewStore(1 << 20)
	now := time.Now()
	a, b := s.Begin(keyFor("/a")), s.Begin(keyFor("/a"))
	if !a.Record(now, -1) || b.Record(now, -1) {
		t.Error("two fetches record the same response")
	}
	if !b.Record(now.Add(recordingLimit), -1) {
		t.Error("a slow fetch keeps others from recording")
	}
	a.End()
	b.End()
	if c := s.Begin(keyFor("/a")); !c.Record(now, -1) {
		t.Error("a fetch cannot record although no other one does")
	} else {
		c.End()
	}
}

// Recordings are limited to half of the store.
func TestRecordingIsBounded(t *testing.T) {
	const most = 1 << 20
	s := NewStore(most)
	for i := range 100 {
		save(s, keyFor("/"+strconv.Itoa(i)), strings.Repeat("x", 10000), nil)
	}
	var flights []*Fetch
	taken := 0
	for i := range 100 {
		f := s.Begin(keyFor("/slow/" + strconv.Itoa(i)))
		flights = append(flights, f)
		if f.Record(time.Now(), 100000) && f.Write(make([]byte, 50000), 1<<20) {
			taken++
		}
		check(t, s)
	}
	if taken < 3 || taken > 5 {
		t.Errorf("%d responses of 100 kB are being recorded in a store of 1 MiB", taken)
	}
	for _, f := range flights {
		f.End()
	}
	check(t, s)
	if stats := s.Stats(); stats.Entries == 0 {
		t.Error("recording evicted all entries")
	}
}

// TestMemory stores 1 GB of distinct responses from several goroutines and checks the
// memory use.
func TestMemory(t *testing.T) {
	const most, offered, workers = 32 << 20, 1_000_000_000, 4
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	s := NewStore(most)
	chunk := make([]byte, 16<<10)
	var all sync.WaitGroup
	var total [workers]int
	for w := range workers {
		all.Go(func() {
			random := rand.New(rand.NewPCG(uint64(w), 1))
			now := time.Now()
			for i := 0; total[w] < offered/workers; i++ {
				f := s.Begin(keyFor(fmt.Sprintf("/%d/%d", w, i)))
				length := int64(random.IntN(256 << 10))
				e := NewEntry(fresh, &Response{200, http.Header{"Etag": {strconv.Itoa(i)}, "Content-Type": {"text/plain"}}, now, now}, nil, nil)
				announced := int64(-1)
				if i%2 == 0 {
					announced = length
				}
				ok := f.Record(now, announced)
				for n := int64(0); n < length; n += int64(len(chunk)) {
					ok = ok && f.Write(chunk[:min(length-n, int64(len(chunk)))], 1<<20)
				}
				if ok {
					f.Store(e, new(Request))
				}
				f.End()
				total[w] += int(length)
				if stats := s.Stats(); stats.Bytes > most {
					t.Errorf("%d bytes are in use", stats.Bytes)
					return
				}
			}
		})
	}
	all.Wait()
	check(t, s)
	runtime.GC()
	runtime.ReadMemStats(&after)
	used := int64(after.HeapAlloc) - int64(before.HeapAlloc)
	stats := s.Stats()
	t.Logf("%d responses; the statistics are %.1f MiB, the heap has grown by %.1f MiB", stats.Entries, float64(stats.Bytes)/(1<<20), float64(used)/(1<<20))
	if stats.Bytes < most*3/4 {
		t.Errorf("only %d bytes are used", stats.Bytes)
	}
	if used > most*11/10 {
		t.Errorf("the heap has grown by %d bytes, with a store of %d", used, most)
	}
	runtime.KeepAlive(s)
}

// TestOverheadCounts fills a store with empty responses and checks the memory use.
func TestOverheadCounts(t *testing.T) {
	const most = 16 << 20
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	s := NewStore(most)
	for i := range 100_000 {
		request := http.Header{"X-A": {strconv.Itoa(i)}}
		save(s, keyFor("/"+strconv.Itoa(i/2)), "x", request, "Vary", "X-A", "Etag", strconv.Itoa(i), "Cache-Tag", "a b c", "X-C", "d")
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	used := int64(after.HeapAlloc) - int64(before.HeapAlloc)
	t.Logf("%d responses in %.1f MiB of heap", s.Stats().Entries, float64(used)/(1<<20))
	if used > most {
		t.Errorf("the heap has grown by %d bytes, with a store of %d", used, most)
	}
	runtime.KeepAlive(s)
}
