package httpcache

import (
	"slices"
	"strings"
	"sync"
	"time"
)

// Store stores responses in bounded memory. It evicts entries with SIEVE (Zhang, Yang,
// Yue, Vigfusson and Rashmi, NSDI 2024). SIEVE keeps popular responses when many others
// are requested once.
//
// The limit includes the overhead of entries and the bodies that are being recorded.
type Store struct {
	mu       sync.RWMutex
	most     int64 // limit in bytes. Guarded by mu, like all fields below.
	bytes    int64 // size of the entries in bytes
	reserved int64 // bytes reserved for bodies that are being recorded
	count    int64 // number of entries
	byKey    map[string]*variants
	byURL    map[string]*variants // head of the list for each URL
	newest   *Entry               // head of the list of entries
	oldest   *Entry               // tail of the list of entries
	hand     *Entry               // next candidate for eviction
	fetches  map[string]*Fetch    // latest request in flight for each URL
	evicted  uint64               // number of evicted entries
}

// variants holds the entries of a key. They differ in the values of the request fields
// that the responses depend on.
type variants struct {
	key, url string
	next     *variants // next key with the same URL
	prev     *variants
	plain    *Entry // response that depends on no field
	specs    []spec
	others   map[string]*Entry
}

// spec is a set of fields that responses depend on.
type spec struct {
	Variant        // fields only; text is empty
	prefix  string // prefix of the keys in others
	count   int    // number of entries
}

// Memory overhead of an entry, a field and a value in bytes.
const (
	entryOverhead = 640
	fieldOverhead = 48
	valueOverhead = 16
)

// NewStore returns a store that is limited to most bytes.
func NewStore(most int64) *Store {
	return &Store{
		most: most, byKey: make(map[string]*variants), byURL: make(map[string]*variants), fetches: make(map[string]*Fetch),
	}
}

// SetMost changes the limit to most bytes and evicts entries if necessary.
func (s *Store) SetMost(most int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.most = most
	s.makeRoom(0)
}

// Get returns the entry for a request, or nil. others reports whether the key has entries
// for other variants.
func (s *Store) Get(key Key, q *Request) (e *Entry, others bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	f := s.byKey[string(key)]
	if f == nil {
		return nil, false
	}
	e = f.find(q)
	if e == nil {
		return nil, true
	}
	if !e.visited.Load() {
		e.visited.Store(true)
	}
	return e, false
}

// find returns the most recent entry that matches the request, or nil.
func (f *variants) find(q *Request) (best *Entry) {
	best = f.plain
	var scratch [256]byte
	for i := range f.specs {
		text := f.specs[i].append(append(scratch[:0], f.specs[i].prefix...), q)
		if e := f.others[string(text)]; e != nil && (best == nil || e.Born.After(best.Born)) {
			best = e
		}
	}
	return best
}

// put stores the response to a request. It replaces the entry of the same variant.
func (s *Store) put(key string, e *Entry, q *Request) {
	variant, on := "", specOf(e)
	if on.prefix != "" {
		variant = string(on.append([]byte(on.prefix), q))
	}
	e.size = e.weigh(key, variant)
	if f := s.byKey[key]; f != nil {
		if old := f.at(variant); old != nil {
			s.remove(old)
		}
	}
	if !s.makeRoom(e.size) {
		return
	}
	f := s.byKey[key] // makeRoom may have removed it
	if f == nil {
		f = s.addVariants(key)
	}
	f.set(on, variant, e)
	e.owner, e.variant = f, variant
	e.older, s.newest = s.newest, e
	if e.older != nil {
		e.older.newer = e
	} else {
		s.oldest = e
	}
	s.bytes += e.size
	s.count++
}

func (s *Store) addVariants(key string) *variants {
	url := urlOf(key)
	f := &variants{key: key, url: url, next: s.byURL[url]}
	if f.next != nil {
		f.next.prev = f
	}
	s.byKey[key], s.byURL[url] = f, f
	return f
}

// specOf returns the request fields that an entry depends on.
func specOf(e *Entry) spec {
	v := variantOn(e.Values("Vary"), e.Values("Access-Control-Allow-Origin"), e.Implied || e.Negotiated)
	switch names := strings.Join(v.names, ",") + "\n"; {
	case v.negotiated:
		return spec{Variant: v, prefix: "\n" + names}
	case len(v.names) > 0:
		return spec{Variant: v, prefix: names}
	}
	return spec{}
}

// weigh returns the memory use of an entry in bytes.
func (e *Entry) weigh(key, variant string) int64 {
	n := entryOverhead + len(key) + len(variant) + cap(e.Body) + len(e.ETag)
	for _, f := range e.fields {
		n += fieldOverhead + len(f.name)
		for _, value := range f.values {
			n += valueOverhead + len(value)
		}
	}
	for _, tag := range e.tags {
		n += valueOverhead + len(tag)
	}
	return int64(n)
}

func (f *variants) at(variant string) *Entry {
	if variant == "" {
		return f.plain
	}
	return f.others[variant]
}

func (f *variants) set(on spec, variant string, e *Entry) {
	if variant == "" {
		f.plain = e
		return
	}
	if f.others == nil {
		f.others = make(map[string]*Entry)
	}
	f.others[variant] = e
	i := slices.IndexFunc(f.specs, func(s spec) bool { return s.prefix == on.prefix })
	if i < 0 {
		i = len(f.specs)
		f.specs = append(f.specs, on)
	}
	f.specs[i].count++
}

// unset removes an entry from its variants.
func (f *variants) unset(e *Entry) {
	if e.variant == "" {
		f.plain = nil
		return
	}
	delete(f.others, e.variant)
	for i := range f.specs {
		if strings.HasPrefix(e.variant, f.specs[i].prefix) {
			if f.specs[i].count--; f.specs[i].count == 0 {
				f.specs = slices.Delete(f.specs, i, i+1)
			}
			return
		}
	}
}

// remove removes an entry from the store.
func (s *Store) remove(e *Entry) {
	f := e.owner
	if f == nil {
		return // not stored
	}
	e.owner = nil
	f.unset(e)
	if f.plain == nil && len(f.others) == 0 {
		s.removeVariants(f)
	}
	if s.hand == e {
		s.hand = e.newer
	}
	if e.newer != nil {
		e.newer.older = e.older
	} else {
		s.newest = e.older
	}
	if e.older != nil {
		e.older.newer = e.newer
	} else {
		s.oldest = e.newer
	}
	e.newer, e.older = nil, nil
	s.bytes -= e.size
	s.count--
}

func (s *Store) removeVariants(f *variants) {
	delete(s.byKey, f.key)
	if f.next != nil {
		f.next.prev = f.prev
	}
	if f.prev != nil {
		f.prev.next = f.next
		return
	}
	// The URL in the map shares memory with the key of its first variants: replace both.
	delete(s.byURL, f.url)
	if f.next != nil {
		s.byURL[f.next.url] = f.next
	}
}

// makeRoom evicts entries until the given number of bytes is available. It returns false
// if that is impossible.
func (s *Store) makeRoom(bytes int64) bool {
	if s.reserved+bytes > s.most {
		return false
	}
	now := time.Now()
	for s.bytes+s.reserved+bytes > s.most {
		s.evict(now)
	}
	return true
}

// evict removes one entry. The store must not be empty.
func (s *Store) evict(now time.Time) {
	// The first pass unmarks all entries, so the second pass finds one.
	for range 2 * s.count {
		if s.hand == nil {
			s.hand = s.oldest
		}
		e := s.hand
		if !e.visited.Load() || e.useless(now) {
			break
		}
		e.visited.Store(false)
		s.hand = e.newer
	}
	if s.hand == nil {
		s.hand = s.oldest
	}
	s.remove(s.hand)
	s.evicted++
}

// useless reports whether the entry cannot be served again, not even after a validation.
// It ignores max-stale in requests.
func (e *Entry) useless(now time.Time) bool {
	return e.ETag == "" && e.LastModified.IsZero() && -e.Left(now) > max(e.WhileRevalidate, e.IfError)
}

// Remove removes an entry from the store.
func (s *Store) Remove(e *Entry) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.remove(e)
}

// Replace replaces old, which Get returned for q, with e, the result of its validation.
// It does nothing if old was removed in the meantime.
func (s *Store) Replace(old, e *Entry, q *Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if old.owner == nil {
		return
	}
	key := old.owner.key
	s.remove(old)
	s.put(key, e, q)
	e.visited.Store(true)
}

// Stats holds statistics of a store.
type Stats struct {
	Bytes    int64  `json:"bytes"`     // bytes in use, including reservations
	MaxBytes int64  `json:"max_bytes"` // limit in bytes
	Entries  int64  `json:"entries"`
	Evicted  uint64 `json:"evicted"` // number of evicted entries
}

// Stats returns the statistics of the store.
func (s *Store) Stats() Stats {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return Stats{s.bytes + s.reserved, s.most, s.count, s.evicted}
}
