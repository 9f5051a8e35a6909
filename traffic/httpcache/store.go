package httpcache

import (
	"slices"
	"strings"
	"sync"
	"time"
)

// Store keeps answers in a bounded amount of memory. What was not asked for since
// the last time that room was made goes first (SIEVE: Zhang, Yang, Yue, Vigfusson and
// Rashmi, NSDI 2024), so that many answers that are asked for once do not drive out
// those that are asked for often.
//
// What counts for the bound is all that an answer takes, and also the part of it that
// has come while it is still being received.
type Store struct {
	mu       sync.RWMutex
	most     int64              // bytes. All below is guarded by mu.
	bytes    int64              // of entries
	reserved int64              // for answers that are being received
	count    int64              // of entries
	families map[string]*family // by key
	byURL    map[string]*family // the first of each URL
	newest   *Entry             // of all entries
	oldest   *Entry             //
	hand     *Entry             // where to look for one to remove
	flights  map[string]*Flight // the first of each URL
	evicted  uint64             // entries that were removed to make room
}

// family is the entries of one key: the answers to requests that differ only in
// fields that the answers depend on.
type family struct {
	key, url string
	next     *family // of the same URL
	prev     *family
	plain    *Entry // which depends on no field
	specs    []spec
	variants map[string]*Entry
}

// spec is a set of fields that answers depend on.
type spec struct {
	Variant        // without a text
	prefix  string // of the keys in variants
	count   int    // of entries
}

// Bytes that an entry and its family take besides what they hold.
const (
	entryOverhead = 640
	fieldOverhead = 48
	valueOverhead = 16
)

// NewStore makes a store that keeps at most so many bytes.
func NewStore(most int64) *Store {
	return &Store{
		most: most, families: make(map[string]*family), byURL: make(map[string]*family), flights: make(map[string]*Flight),
	}
}

// SetMost changes how many bytes the store keeps at most.
func (s *Store) SetMost(most int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.most = most
	s.makeRoom(0)
}

// Get returns the entry for a request. If there is none, others reports whether
// there are entries for requests that differ in some fields.
func (s *Store) Get(key Key, q *Request) (e *Entry, others bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	f := s.families[string(key)]
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

// find returns the youngest entry that a request may have.
func (f *family) find(q *Request) (best *Entry) {
	best = f.plain
	var scratch [256]byte
	for i := range f.specs {
		text := f.specs[i].append(append(scratch[:0], f.specs[i].prefix...), q)
		if e := f.variants[string(text)]; e != nil && (best == nil || e.Born.After(best.Born)) {
			best = e
		}
	}
	return best
}

// put adds an entry for the answer to a request, in place of the one that the request
// would have had.
func (s *Store) put(key string, e *Entry, q *Request) {
	variant, on := "", specOf(e)
	if on.prefix != "" {
		variant = string(on.append([]byte(on.prefix), q))
	}
	e.size = e.weigh(key, variant)
	if f := s.families[key]; f != nil {
		if old := f.at(variant); old != nil {
			s.remove(old)
		}
	}
	if !s.makeRoom(e.size) {
		return
	}
	f := s.families[key] // there may be none any more
	if f == nil {
		f = s.addFamily(key)
	}
	f.set(on, variant, e)
	e.home, e.variant = f, variant
	e.older, s.newest = s.newest, e
	if e.older != nil {
		e.older.newer = e
	} else {
		s.oldest = e
	}
	s.bytes += e.size
	s.count++
}

func (s *Store) addFamily(key string) *family {
	url := urlOf(key)
	f := &family{key: key, url: url, next: s.byURL[url]}
	if f.next != nil {
		f.next.prev = f
	}
	s.families[key], s.byURL[url] = f, f
	return f
}

// specOf returns the fields that an entry depends on.
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

// weigh is how many bytes an entry takes.
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

func (f *family) at(variant string) *Entry {
	if variant == "" {
		return f.plain
	}
	return f.variants[variant]
}

func (f *family) set(on spec, variant string, e *Entry) {
	if variant == "" {
		f.plain = e
		return
	}
	if f.variants == nil {
		f.variants = make(map[string]*Entry)
	}
	f.variants[variant] = e
	i := slices.IndexFunc(f.specs, func(s spec) bool { return s.prefix == on.prefix })
	if i < 0 {
		i = len(f.specs)
		f.specs = append(f.specs, on)
	}
	f.specs[i].count++
}

// unset takes an entry out of its family.
func (f *family) unset(e *Entry) {
	if e.variant == "" {
		f.plain = nil
		return
	}
	delete(f.variants, e.variant)
	for i := range f.specs {
		if strings.HasPrefix(e.variant, f.specs[i].prefix) {
			if f.specs[i].count--; f.specs[i].count == 0 {
				f.specs = slices.Delete(f.specs, i, i+1)
			}
			return
		}
	}
}

// remove takes an entry out of the store.
func (s *Store) remove(e *Entry) {
	f := e.home
	if f == nil {
		return // it is out already
	}
	e.home = nil
	f.unset(e)
	if f.plain == nil && len(f.variants) == 0 {
		s.removeFamily(f)
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

func (s *Store) removeFamily(f *family) {
	delete(s.families, f.key)
	if f.next != nil {
		f.next.prev = f.prev
	}
	if f.prev != nil {
		f.prev.next = f.next
		return
	}
	// The URL in the map is part of the key of the family that is named there.
	delete(s.byURL, f.url)
	if f.next != nil {
		s.byURL[f.next.url] = f.next
	}
}

// makeRoom removes entries until there is room for so many bytes. It reports whether
// there is.
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

// evict removes the entry that is least worth keeping. There must be one.
func (s *Store) evict(now time.Time) {
	// Others visit entries meanwhile: twice around is enough.
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

// useless reports whether an entry can never be given again.
func (e *Entry) useless(now time.Time) bool {
	return e.ETag == "" && e.LastModified.IsZero() && -e.Left(now) > max(e.WhileRevalidate, e.IfError)
}

// Remove takes an entry out of the store.
func (s *Store) Remove(e *Entry) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.remove(e)
}

// Replace puts an entry in the place of the one that it was validated for, which was
// found for a request. It does nothing if that was removed meanwhile.
func (s *Store) Replace(old, e *Entry, q *Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if old.home == nil {
		return
	}
	key := old.home.key
	s.remove(old)
	s.put(key, e, q)
	e.visited.Store(true)
}

// Stats are figures about a store.
type Stats struct {
	Bytes    int64  `json:"bytes"`     // that are in use
	MaxBytes int64  `json:"max_bytes"` // that may be
	Entries  int64  `json:"entries"`
	Evicted  uint64 `json:"evicted"` // entries that were removed to make room
}

// Stats returns the figures of the store.
func (s *Store) Stats() Stats {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return Stats{s.bytes + s.reserved, s.most, s.count, s.evicted}
}
