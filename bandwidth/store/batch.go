package store

import (
	"maps"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/rgate/rgate/stats"
)

// The spans of time that rows are kept for, in seconds.
const (
	minute int64 = 60
	hour         = 60 * minute
	day          = 24 * hour
)

// floorTo cuts a time down to whole units.
func floorTo(at, unit int64) int64 {
	rest := at % unit
	if rest < 0 {
		rest += unit
	}
	return at - rest
}

// seriesKey identifies a row of one time.
type seriesKey struct {
	gateway string
	Key
}

// maxName is the length of a name in bytes: the index of PostgreSQL takes four of
// them, and no more.
const maxName = 500

// cleanKey replaces what a database rejects in names: one invalid name would fail the whole
// batch.
func cleanKey(gateway string, key Key) seriesKey {
	return seriesKey{CleanName(gateway), Key{CleanName(key.Service), CleanName(key.Route), CleanName(key.Consumer)}}
}

func CleanName(name string) string {
	if len(name) > maxName {
		name = name[:maxName]
	}
	if utf8.ValidString(name) && strings.IndexByte(name, 0) < 0 {
		return name
	}
	name = strings.ReplaceAll(name, "\x00", "\uFFFD")
	return strings.ToValidUTF8(name, "")
}

// maxSample is more than can be served in a minute. Sums of such numbers do not
// overflow for as long as there are databases.
const maxSample = 1 << 50

func (b Bytes) sane() bool {
	for _, n := range []int64{b.Ingress, b.Egress, b.IngressHeaders, b.EgressHeaders} {
		if n < 0 || n > maxSample {
			return false
		}
	}
	return true
}

// rowKey identifies a row.
type rowKey struct {
	at int64 // the beginning of its minute
	seriesKey
}

// requestCounts are how requests went. Sketches are merged a few at a time.
type requestCounts struct {
	requests, errors uint64
	seconds          float64
	sketches         [][]byte
}

func (f *requestCounts) add(o *requestCounts) {
	f.requests += o.requests
	f.errors += o.errors
	f.seconds += o.seconds
	f.sketches = append(f.sketches, o.sketches...)
	if len(f.sketches) >= maxSketches {
		f.mergeSketches()
	}
}

const maxSketches = 8

// mergeSketches makes one of the sketches. If one of them cannot be read, which only
// a database can have given us, there is none.
func (f *requestCounts) mergeSketches() {
	merged, err := stats.MergeSketches(f.sketches...)
	f.sketches = f.sketches[:0]
	if err == nil && merged != nil {
		f.sketches = append(f.sketches, merged)
	}
}

// sketch is the one that all are merged into, or nil.
func (f *requestCounts) sketch() []byte {
	if len(f.sketches) > 1 {
		f.mergeSketches()
	}
	if len(f.sketches) == 0 {
		return nil
	}
	return f.sketches[0]
}

// batch is what has been counted and is to be written: of each minute, and of each
// series in it. It is not safe for concurrent use.
type batch struct {
	bytes    map[rowKey]*Bytes
	requests map[rowKey]*requestCounts
}

func newBatch() *batch {
	return &batch{bytes: make(map[rowKey]*Bytes), requests: make(map[rowKey]*requestCounts)}
}

func (b *batch) len() int { return len(b.bytes) + len(b.requests) }

// total is the sum of everybody's bytes in it.
func (b *batch) total() (n int64) {
	for key, one := range b.bytes {
		if key.Consumer == "" {
			n += one.Ingress + one.Egress
		}
	}
	return n
}

func (b *batch) addBytes(key rowKey, n Bytes) {
	if n.IsZero() {
		return
	}
	sum := b.bytes[key]
	if sum == nil {
		sum = new(Bytes)
		b.bytes[key] = sum
	}
	sum.Add(n)
}

func (b *batch) addRequests(key rowKey, f requestCounts) {
	sum := b.requests[key]
	if sum == nil {
		sum = new(requestCounts)
		b.requests[key] = sum
	}
	sum.add(&f)
}

// merge adds what o has.
func (b *batch) merge(o *batch) {
	for key, n := range o.bytes {
		b.addBytes(key, *n)
	}
	for key, f := range o.requests {
		b.addRequests(key, *f)
	}
}

// take removes up to a number of rows, the oldest first, and returns them.
func (b *batch) take(limit int) *batch {
	if b.len() <= limit {
		all := *b
		*b = *newBatch()
		return &all
	}
	taken, cut := newBatch(), b.cut(limit)
	for key, n := range b.bytes {
		if key.at <= cut {
			taken.bytes[key] = n
			delete(b.bytes, key)
		}
	}
	for key, f := range b.requests {
		if key.at <= cut {
			taken.requests[key] = f
			delete(b.requests, key)
		}
	}
	return taken
}

// cut is a minute up to which there are about a number of rows: those of one more
// than fit, at most.
func (b *batch) cut(limit int) (at int64) {
	rows := make(map[int64]int)
	for key := range b.bytes {
		rows[key.at]++
	}
	for key := range b.requests {
		rows[key.at]++
	}
	n := 0
	for _, at = range slices.Sorted(maps.Keys(rows)) {
		if n += rows[at]; n >= limit {
			break
		}
	}
	return at
}

// coarsen moves rows that are older than a time to the beginning of their unit, so
// that there are fewer. Sums stay. Units that must stay whole are left alone.
func (b *batch) coarsen(unit, before int64, spared func(at, unit int64) bool) {
	coarse := newBatch()
	for key, n := range b.bytes {
		if at := floorTo(key.at, unit); at != key.at && at+unit <= before && !spared(at, unit) {
			delete(b.bytes, key)
			key.at = at
			coarse.addBytes(key, *n)
		}
	}
	for key, f := range b.requests {
		if at := floorTo(key.at, unit); at != key.at && at+unit <= before && !spared(at, unit) {
			delete(b.requests, key)
			key.at = at
			coarse.addRequests(key, *f)
		}
	}
	b.merge(coarse)
}

// bound keeps the rows below a number, as far as they can be merged: into those of
// their hours, then into those of their days.
func (b *batch) bound(limit int, now int64, spared func(at, unit int64) bool) {
	for _, unit := range []int64{hour, day} {
		if b.len() > limit {
			b.coarsen(unit, now, spared)
		}
	}
}

// coarser adds the rows up to those of a longer unit.
func (b *batch) coarser(unit int64) *batch {
	sum := newBatch()
	for key, n := range b.bytes {
		key.at = floorTo(key.at, unit)
		sum.addBytes(key, *n)
	}
	for key, f := range b.requests {
		key.at = floorTo(key.at, unit)
		sum.addRequests(key, *f)
	}
	return sum
}
