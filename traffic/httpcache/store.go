package httpcache

import (
	"slices"
	"strings"
	"sync"
	"time"
)

// Store stores responses with bounded memory. It evicts by SIEVE (Zhang, Yang, Yue,
// Vigfusson and Rashmi, NSDI 2024), so that many responses that are requested once do not
// evict those that are requested often.
//
// The bound includes the overhead of entries, and the bodies that are being recorded.
type Store struct {
	mu       sync.RWMutex
	most     int64 // bytes. All below is guarded by mu.
	bytes    int64 // of entries
	reserved int64 // for bodies that are being recorded
	count    int64 // of entries
	byKey    map[string]*variants
	byURL    map[string]*variants // the first of each URL
	newest   *Entry               // of all entries
	oldest   *Entry               //
	hand     *Entry               // where the next eviction begins
	fetches  map[string]*Fetch    // the newest of each URL
	evicted  uint64               // the number of evicted entries
}

// variants are the entries of one key: the responses to requests that differ in the fields
// that the responses depend on.
type variants struct {
	key, url string
	next     *variants // of the same URL
	prev     *variants
	plain    *Entry // depends on no field
	specs    []spec
	others   map[string]*Entry
}

// spec is a set of fields that responses depend on.
type spec struct {
	Variant        // without a text
	prefix  string // of the keys in others
	count   int    // of entries
}

// The overhead of an entry, a field and a value in bytes.
const (
	entryOverhead = 640
	fieldOverhead = 48
	valueOverhead = 16
)

// NewStore returns a store of at most that many bytes.
func NewStore(most int64) *Store {
	return &Store{
		most: most, byKey: make(map[string]*variants), byURL: make(map[string]*variants), fetches: make(map[string]*Fetch),
	}
}

// SetMost changes the bound of the store in bytes.
func (s *Store) SetMost(most int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.most = most
	s.makeRoom(0)
}

// Get returns the entry for a request. If there is none, others reports whether the key has
// entries for other variants.
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

// find returns the youngest entry that matches a request.
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

// put adds the entry of the response to a request. It replaces the entry of that variant.
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

// weigh returns the size of an entry in bytes.
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

// makeRoom evicts entries until there is room for that many bytes. It reports whether there
// is.
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

// evict removes one entry. There must be one.
func (s *Store) evict(now time.Time) {
	// Entries may be visited meanwhile, so the loop is bounded: twice around.
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

// useless reports whether an entry can never be served again.
func (e *Entry) useless(now time.Time) bool {
	return e.ETag == "" && e.LastModified.IsZero() && -e.Left(now) > max(e.WhileRevalidate, e.IfError)
}

// Remove removes an entry from the store.
func (s *Store) Remove(e *Entry) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.remove(e)
}

// Replace replaces an entry, which Get returned for the request, by the result of its
// validation. It does nothing if old was removed meanwhile.
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

// Stats are statistics of a store.
type Stats struct {
	Bytes    int64  `json:"bytes"`     // in use
	MaxBytes int64  `json:"max_bytes"` // the bound
	Entries  int64  `json:"entries"`
	Evicted  uint64 `json:"evicted"` // entries that were evicted
}

// Stats returns the statistics of the store.
func (s *Store) Stats() Stats {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return Stats{s.bytes + s.reserved, s.most, s.count, s.evicted}
}
