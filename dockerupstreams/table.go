package dockerupstreams

import (
	"sync"
	"time"
)

// event is a change of a container.
type event struct {
	id     string
	action action
	signal int       // of a kill; 0: unknown
	at     time.Time // by the engine's clock
}

type action uint8

const (
	actionOther   action = iota // the container must be listed again
	actionStart                 // running
	actionKill                  // was sent a signal
	actionEnd                   // ended
	actionPause                 // paused
	actionUnpause               // running again
	actionNetwork               // was attached to a network, or detached from one
)

// drainFor limits how long a container receives no requests after a signal that ends most
// processes. It is longer than the ten seconds after which `docker stop` kills, so that a
// container that is about to be killed receives nothing; it is limited, as a process may
// ignore the signal.
const drainFor = 15 * time.Second

// terminates reports whether a signal usually ends a process. SIGHUP, SIGUSR1, SIGUSR2
// and SIGWINCH (1, 10, 12, 28) are used to reload or to reopen logs.
func terminates(signal int) bool {
	switch signal {
	case 0, 2, 3, 6, 9, 15, 37: // unknown, INT, QUIT, ABRT, KILL, TERM, RTMIN+3 (systemd: halt)
		return true
	default:
		return false
	}
}

// table holds an engine's running containers. It is updated by events and lists, which may
// contradict each other for a moment: a list shows the state when the engine wrote it,
// and an event may overtake it.
type table struct {
	running  map[string]*container
	draining map[string]time.Time // until when, by the gateway's clock
	expiry   time.Time            // the earliest end of a drain; zero: none
	dirty    map[string]struct{}  // must be listed again
	touched  map[string]struct{}  // changed since this was last emptied

	facts         map[string]*fact
	pendingChecks queue // of facts that may be too old
	relists       [len(relistDelays)]queue

	// The events since the request for the list in flight: they are applied again after
	// it.
	replay    []event
	recording bool

	// When the connection began, and whether its first list is still missing: earlier state
	// may be outdated, but is complete.
	since      time.Time
	connecting bool

	// Start times of containers whose start was reported, in nanoseconds since 1970, by
	// ID. It may be read without the watcher's mu.
	starts sync.Map

	// Whether a container is selected. Others are marked stale instead of being listed
	// again.
	wanted func(*container) bool
}

func newTable(wanted func(*container) bool) *table {
	t := &table{
		running:       make(map[string]*container),
		draining:      make(map[string]time.Time),
		dirty:         make(map[string]struct{}),
		touched:       make(map[string]struct{}),
		facts:         make(map[string]*fact),
		pendingChecks: queue{delay: eventTrust},
		wanted:        wanted,
	}
	for i, delay := range relistDelays {
		t.relists[i].delay = delay
	}
	return t
}

// apply applies an event. What it states takes effect at once; the rest waits for the
// next list.
func (t *table) apply(e event, now time.Time) {
	if t.recording {
		t.replay = append(t.replay, e)
	}
	// The stream begins in the past, when a container that runs now may have died before.
	// Such events only cause a list.
	past := e.at.Before(t.since)
	switch {
	case e.action == actionKill && !terminates(e.signal):
		// If it ends, an event will report it.
	case e.action == actionKill:
		t.drain(e, now)
		if past {
			t.markDirty(e.id)
		} else {
			t.touch(e.id)
		}
	case e.action == actionNetwork:
		if t.running[e.id] != nil { // otherwise it has not started, or has ended
			t.markDirty(e.id)
			t.relist(e.id, now)
		}
	case e.action == actionStart:
		t.starts.Store(e.id, e.at.UnixNano())
		if t.drains(e.id) {
			delete(t.draining, e.id)
			t.touch(e.id)
		}
		if !past {
			t.believe(e.id, "running", now)
		}
		t.markDirty(e.id)
	case past || e.action == actionOther:
		t.markDirty(e.id)
	case e.action == actionEnd:
		t.believe(e.id, "", now)
		t.remove(e.id)
	case e.action == actionPause:
		t.alter(e.id, "paused", now)
	case e.action == actionUnpause:
		t.alter(e.id, "running", now)
		t.markDirty(e.id)
	}
}

// drain keeps requests from a container that was sent a signal, for a while.
func (t *table) drain(e event, now time.Time) {
	begun := now
	if e.at.Before(now) && now.Sub(e.at) < drainFor {
		begun = e.at // the event is late
	}
	t.draining[e.id] = begun.Add(drainFor)
	t.expiry = sooner(t.expiry, t.draining[e.id])
}

// alter changes a container's state.
func (t *table) alter(id, state string, now time.Time) {
	t.believe(id, state, now)
	if c := t.running[id]; c != nil {
		altered := *c
		altered.state = state
		t.running[id] = &altered
		t.touch(id)
	}
}

// connect records the start of a connection.
func (t *table) connect(now time.Time) {
	t.since, t.connecting = now, true
}

// begin records the request for a list.
func (t *table) begin() {
	t.recording, t.replay = true, t.replay[:0]
}

// replaceAll applies a list of all running containers.
func (t *table) replaceAll(list []*container, now time.Time) {
	old := t.running
	t.running = make(map[string]*container, len(list))
	clear(t.dirty)
	for _, c := range list {
		if c = t.listed(c, now); c != nil {
			t.running[c.id] = c
			t.restore(c.id, now)
			t.touch(c.id)
		}
	}
	for id := range old {
		if t.running[id] == nil {
			t.missing(id)
			t.remove(id)
			t.touch(id)
		}
	}
	t.end(now)
}

// replace applies a list of the containers ids. Those missing in it do not run.
func (t *table) replace(ids []string, list []*container, now time.Time) {
	listed := make(map[string]*container, len(list))
	for _, c := range list {
		listed[c.id] = c
	}
	for _, id := range ids {
		c := listed[id]
		if c == nil {
			t.missing(id)
		} else {
			c = t.listed(c, now)
		}
		if c == nil {
			t.remove(id)
			continue
		}
		t.running[id] = c
		t.restore(id, now)
		t.touch(id)
	}
	t.end(now)
}

// end applies the events since the request for the list again.
func (t *table) end(now time.Time) {
	t.recording, t.connecting = false, false
	for _, e := range t.replay {
		t.apply(e, now)
	}
	t.replay = t.replay[:0]
}

// expire marks containers as dirty when their drain ends, and returns the time of the next
// one, or zero.
func (t *table) expire(now time.Time) (next time.Time) {
	if !t.expiry.After(now) {
		t.expiry = time.Time{}
		for id, until := range t.draining {
			if until.After(now) {
				t.expiry = sooner(t.expiry, until)
			} else {
				t.dirty[id] = struct{}{}
			}
		}
	}
	return sooner(t.expiry, t.recheck(now))
}

// sooner returns the earlier of two times, ignoring zero.
func sooner(a, b time.Time) time.Time {
	if a.IsZero() || (!b.IsZero() && b.Before(a)) {
		return b
	}
	return a
}

// restore ends the drain of a container that a list shows running after its time.
func (t *table) restore(id string, now time.Time) {
	if until, ok := t.draining[id]; ok && !until.After(now) {
		delete(t.draining, id)
	}
}

func (t *table) remove(id string) {
	delete(t.draining, id)
	t.starts.Delete(id)
	delete(t.dirty, id)
	if t.running[id] != nil {
		delete(t.running, id)
		t.touch(id)
	}
}

// markDirty schedules a container to be listed again, unless it is not selected.
func (t *table) markDirty(id string) {
	if c := t.running[id]; c != nil && !t.wanted(c) {
		c.stale = true
		return
	}
	t.dirty[id] = struct{}{}
}

func (t *table) touch(id string) { t.touched[id] = struct{}{} }

func (t *table) drains(id string) bool {
	_, ok := t.draining[id]
	return ok
}
