package stats

import "slices"

// ring holds the counts of the last periods. The current period is open. Earlier periods
// are sealed: encoded into a few hundred bytes each and immutable.
type ring struct {
	size   int64   // maximum number of sealed periods
	slots  []slot  // period p is at p % size; allocated by the first record
	period int64   // number of the open period
	open   *counts // nil until the first record
}

// slot is a sealed period. The zero value is an empty period.
type slot struct {
	period  int64
	codes   []codeCount
	took    exactSum
	sketch  []byte
	traffic Traffic
}

// add adds t to a period, which may be sealed. A shard hands over its counts at its next
// use, which can be much later.
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
		return // the period has been overwritten
	}
	merged := newCounts()
	if late.period == period {
		late.unseal(merged)
	}
	merged.merge(t)
	*late = seal(period, merged)
}

// since adds the open period to t unless it is before first. It returns the sealed
// periods from first on. They are immutable, so the caller can decode them without the
// lock.
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

// absorb adds the counts of o.
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
