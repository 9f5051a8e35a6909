package dockerupstreams

import "time"

// eventTrust is the time during which events take precedence over lists. Engines emit
// some events before the change is visible in their lists: Docker sends unpause, die,
// connect and disconnect while it writes the new state to disk. After network events,
// which do not contain the new state, the container is listed after each of
// relistDelays.
const eventTrust = 2 * time.Second

var relistDelays = [...]time.Duration{20 * time.Millisecond, 200 * time.Millisecond, 2 * time.Second}

// fact is the state of a container reported by an event.
type fact struct {
	state        string // empty: ended
	until        time.Time
	contradicted bool // whether a list contradicted the event
}

// queue holds container IDs that are due after a fixed delay, in insertion order.
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

// pop removes the IDs that are due and calls take for each. It returns the time when
// the next one is due, or zero.
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

// believe records a container's state reported by an event.
func (t *table) believe(id, state string, now time.Time) {
	t.facts[id] = &fact{state: state, until: now.Add(eventTrust)}
	t.pendingChecks.push(id, now)
}

// listed returns a listed container corrected by newer events, or nil if the container
// does not run.
func (t *table) listed(c *container, now time.Time) *container {
	_, c.buildStep = t.builds[c.id]
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

// missing records that a list does not contain a container.
func (t *table) missing(id string) {
	if f := t.facts[id]; f != nil && f.state != "" {
		f.contradicted = true
	}
}

// relist schedules a container to be listed after each of relistDelays.
func (t *table) relist(id string, now time.Time) {
	for i := range t.relists {
		t.relists[i].push(id, now)
	}
}

// recheck marks the containers that are due as dirty. It returns the time when the next
// one is due, or zero.
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
			return // replaced by a newer fact
		}
		delete(t.facts, id)
		if f.contradicted {
			t.markDirty(id)
		}
	}))
}
