package dockerupstreams

import "time"

// Engines emit some events before the change is visible in their lists: Docker's unpause,
// die, connect and disconnect are sent while the new state is being written to disk.
// What an event states therefore takes precedence over lists for eventTrust, and what
// only a list shows is listed more than once.
const eventTrust = 2 * time.Second

var relistDelays = [...]time.Duration{20 * time.Millisecond, 200 * time.Millisecond, 2 * time.Second}

// fact is the state of a container according to an event.
type fact struct {
	state        string // empty: ended
	until        time.Time
	contradicted bool // by a list
}

// queue holds containers that are due after a fixed delay, and thus in the order in which
// they were added.
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

// pop calls take for all that are due, and returns the time of the next one, or zero.
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

// believe records a container's state according to an event.
func (t *table) believe(id, state string, now time.Time) {
	t.facts[id] = &fact{state: state, until: now.Add(eventTrust)}
	t.pendingChecks.push(id, now)
}

// listed corrects a listed container by newer facts. It returns nil if the container
// does not run.
func (t *table) listed(c *container, now time.Time) *container {
	f := t.facts[c.id]
	if f == nil || !f.until.After(now) || c.state == f.state {
		return c
	}
	f.contradicted = true
	if f.state == "" {
		return nil
	}
	c.state = f.state
	return c
}

// missing records that a list lacks a container.
func (t *table) missing(id string) {
	if f := t.facts[id]; f != nil && f.state != "" {
		f.contradicted = true
	}
}

// relist schedules a container for further lists.
func (t *table) relist(id string, now time.Time) {
	for i := range t.relists {
		t.relists[i].push(id, now)
	}
}

// recheck marks the containers that are due as dirty, and returns the time of the next
// one, or zero.
func (t *table) recheck(now time.Time) (next time.Time) {
	for i := range t.relists {
		next = sooner(next, t.relists[i].pop(now, func(id string) {
			if t.running[id] != nil {
				t.markDirty(id)
			}
		}))
	}
	return sooner(next, t.pendingChecks.pop(now, func(id string) {
		f := t.facts[id]
		if f == nil || f.until.After(now) {
			return // replaced by a newer one
		}
		delete(t.facts, id)
		if f.contradicted {
			t.markDirty(id)
		}
	}))
}
