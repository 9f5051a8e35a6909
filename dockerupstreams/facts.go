package dockerupstreams

import "time"

// Engines tell of some events before the change can be seen in their lists:
// Docker's unpause, die, connect and disconnect come while the new state is
// still being written to disk. What an event says for certain is therefore
// believed against lists for a moment, and what only a list can tell is asked
// for more than once.
const believeFor = 2 * time.Second

var lookAgainAfter = [...]time.Duration{20 * time.Millisecond, 200 * time.Millisecond, 2 * time.Second}

// fact is the state of a container according to an event.
type fact struct {
	state    string // empty: it ended
	until    time.Time
	disputed bool // by a list
}

// queue holds containers that are due after always the same time, and therefore
// in the order in which they came.
type queue struct {
	delay time.Duration
	items []queued
}

type queued struct {
	id  string
	due time.Time
}

func (q *queue) push(id string, now time.Time) {
	q.items = append(q.items, queued{id, now.Add(q.delay)})
}

// pop calls take for all that are due, and returns when the next one will be
// (zero: there is none).
func (q *queue) pop(now time.Time, take func(id string)) (next time.Time) {
	for len(q.items) > 0 {
		if first := q.items[0]; first.due.After(now) {
			return first.due
		}
		id := q.items[0].id
		q.items = q.items[1:]
		take(id)
	}
	q.items = nil
	return time.Time{}
}

// believe notes what an event said about a container's state.
func (t *table) believe(id, state string, now time.Time) {
	t.facts[id] = &fact{state: state, until: now.Add(believeFor)}
	t.doubts.push(id, now)
}

// listed corrects what a list says about a container by what is known better;
// nil: it does not run.
func (t *table) listed(c *container, now time.Time) *container {
	f := t.facts[c.id]
	if f == nil || !f.until.After(now) || c.state == f.state {
		return c
	}
	f.disputed = true
	if f.state == "" {
		return nil
	}
	c.state = f.state
	return c
}

// missing notes that a list does not have a container.
func (t *table) missing(id string) {
	if f := t.facts[id]; f != nil && f.state != "" {
		f.disputed = true
	}
}

// lookAgain has a container listed again, more than once.
func (t *table) lookAgain(id string, now time.Time) {
	for i := range t.looks {
		t.looks[i].push(id, now)
	}
}

// recheck has those containers listed again that are due for it, and returns when
// the next one will be (zero: none).
func (t *table) recheck(now time.Time) (next time.Time) {
	for i := range t.looks {
		next = sooner(next, t.looks[i].pop(now, func(id string) {
			if t.running[id] != nil {
				t.soil(id)
			}
		}))
	}
	return sooner(next, t.doubts.pop(now, func(id string) {
		f := t.facts[id]
		if f == nil || f.until.After(now) {
			return // a newer one is in its place
		}
		delete(t.facts, id)
		if f.disputed {
			t.soil(id)
		}
	}))
}
