package store

import (
	"maps"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/rgate/rgate/stats"
)

// The row lengths in seconds.
const (
	minute int64 = 60
	hour         = 60 * minute
	day          = 24 * hour
)

// floorTo rounds a time down to a multiple of unit.
func floorTo(at, unit int64) int64 {
	rest := at % unit
	if rest < 0 {
		rest += unit
	}
	return at - rest
}

// seriesKey identifies a series of rows.
type seriesKey struct {
	gateway string
	Key
}

// maxName is the maximum length of a name in bytes. PostgreSQL's limit for an index entry
// permits four such names.
const maxName = 500

// cleanKey replaces characters in names that a database rejects. One invalid name would
// fail the whole batch.
func cleanKey(gateway string, key Key) seriesKey {
	return seriesKey{CleanName(gateway), Key{CleanName(key.Service), CleanName(key.Route), CleanName(key.Consumer)}}
}

// CleanName truncates a name to maxName bytes, and replaces or removes characters that a
// database rejects.
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

// maxSample is an upper bound of the bytes in a minute. Larger values are invalid. Sums
// of valid values do not overflow an int64 in practice.
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
	at int64 // start of the row's minute, hour or day
	seriesKey
}

// requestCounts holds request counts, durations and latency sketches. Sketches are merged
// lazily, in groups of maxSketches.
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

// mergeSketches replaces the sketches with one merged sketch. It removes all of them if
// one is invalid, which only a sketch from the database can be.
func (f *requestCounts) mergeSketches() {
	merged, err := stats.MergeSketches(f.sketches...)
	f.sketches = f.sketches[:0]
	if err == nil && merged != nil {
		f.sketches = append(f.sketches, merged)
	}
}

// sketch returns the merged sketch, or nil.
func (f *requestCounts) sketch() []byte {
	if len(f.sketches) > 1 {
		f.mergeSketches()
	}
	if len(f.sketches) == 0 {
		return nil
	}
	return f.sketches[0]
}

// batch holds the rows that are not written yet, by minute and series. It is not safe for
// concurrent use.
type batch struct {
	bytes    map[rowKey]*Bytes
	requests map[rowKey]*requestCounts
}

func newBatch() *batch {
	return &batch{bytes: make(map[rowKey]*Bytes), requests: make(map[rowKey]*requestCounts)}
}

func (b *batch) len() int { return len(b.bytes) + len(b.requests) }

// total returns the sum of body bytes in rows without a consumer.
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

// merge adds the rows of o.
func (b *batch) merge(o *batch) {
	for key, n := range o.bytes {
		b.addBytes(key, *n)
	}
	for key, f := range o.requests {
		b.addRequests(key, *f)
	}
}

// take removes and returns about limit rows, the oldest first.
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

// cut returns the minute up to which there are about limit rows. The last minute is
// always included as a whole.
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

// coarsen merges the rows of each series into one row per unit, if the unit ends at or
// before before. Sums do not change. It skips units for which spared returns true.
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

// bound reduces the number of rows to limit if possible. It merges rows by hour, then by
// day.
func (b *batch) bound(limit int, now int64, spared func(at, unit int64) bool) {
	for _, unit := range []int64{hour, day} {
		if b.len() > limit {
			b.coarsen(unit, now, spared)
		}
	}
}

// coarser returns the batch summed by a longer unit.
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
