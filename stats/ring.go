package stats

import "slices"

// ring keeps the last periods. The current one is open; those before it are sealed:
// encoded into a few hundred bytes each, and never changed in place.
type ring struct {
	size   int64   // sealed periods that are kept
	slots  []slot  // period p is at p % size; made with the first record
	period int64   // the open one
	open   *counts // nil until the first record
}

// slot is a sealed period. Its zero value is an empty one.
type slot struct {
	period  int64
	codes   []codeCount
	took    exactSum
	sketch  []byte
	traffic Traffic
}

// add adds t to a period, which may be sealed already: a shard hands over its counts
// when it is next used, which may be much later.
func (r *ring) add(period int64, t *counts) {
	if r.open == nil {
		r.slots = make([]slot, r.size)
		r.open = newCounts()
		r.period = period
	}
	if period > r.period {
		r.slots[r.period%r.size] = seal(r.period, r.open)
		r.open.reset()
		r.period = period
	}
	if period == r.period {
		r.open.merge(t)
		return
	}

	late := &r.slots[period%r.size]
	if period < r.period-r.size || late.period > period {
		return // older than the ring
	}
	merged := newCounts()
	if late.period == period {
		late.unseal(merged)
	}
	merged.merge(t)
	*late = seal(period, merged)
}

// since adds the open period to t, unless it is before first. It returns the sealed
// ones from first on: they are immutable, so that the caller can unseal them without
// the lock.
func (r *ring) since(first int64, t *counts) (sealed []slot) {
	if r.open == nil {
		return nil
	}
	if r.period >= first {
		t.merge(r.open)
	}
	for _, s := range r.slots {
		if s.period >= first && !s.isEmpty() {
			sealed = append(sealed, s)
		}
	}
	return sealed
}

// absorb adds everything that o holds.
func (r *ring) absorb(o *ring) {
	if o.open == nil {
		return
	}
	for _, s := range o.slots {
		if !s.isEmpty() {
			t := newCounts()
			s.unseal(t)
			r.add(s.period, t)
		}
	}
	r.add(o.period, o.open)
}

func seal(period int64, t *counts) slot {
	return slot{
		period:  period,
		codes:   slices.Clone(t.codes),
		took:    t.took,
		sketch:  t.encode(true),
		traffic: t.traffic,
	}
}

func (s *slot) isEmpty() bool { return len(s.codes) == 0 && s.traffic == Traffic{} }

func (s slot) unseal(into *counts) {
	for _, c := range s.codes {
		into.count(c.code, c.n)
	}
	into.took.add(s.took)
	into.decode(s.sketch)
	into.traffic.add(s.traffic)
}
