package dockerupstreams

import (
	"sync"
	"time"
)

// event is an event of a container.
type event struct {
	id     string
	action action
	signal int       // the signal of actionKill; 0: unknown
	at     time.Time // by the engine's clock

	// Whether actionStart is of a container for a step of a classic docker build.
	buildStep bool
}

type action uint8

const (
	actionOther   action = iota // the container must be listed again
	actionStart                 // running
	actionKill                  // a signal was sent
	actionEnd                   // ended
	actionPause                 // paused
	actionUnpause               // running again
	actionNetwork               // attached to or detached from a network
)

// drainFor is the maximum time during which a container receives no requests after a
// terminating signal. It is longer than the 10 seconds after which `docker stop` sends
// SIGKILL. It is limited because a process may ignore the signal.
const drainFor = 15 * time.Second

// terminates reports whether a signal usually terminates a process. SIGHUP, SIGUSR1 and
// SIGUSR2 (1, 10, 12) usually reload a configuration or reopen logs. SIGWINCH (28) usually
// reports the new size of a terminal.
func terminates(signal int) bool {
	switch signal {
	case 0, 2, 3, 6, 9, 15, 37: // unknown, INT, QUIT, ABRT, KILL, TERM, RTMIN+3 (systemd: halt)
		return true
	default:
		return false
	}
}

// table holds an engine's running containers. Events and lists update it. They may
// briefly contradict each other: an event can arrive before a list that the engine
// wrote earlier.
type table struct {
	running  map[string]*container
	draining map[string]time.Time // the end of the drain, by the gateway's clock
	expiry   time.Time            // the earliest end of a drain; zero: none
	dirty    map[string]struct{}  // containers that must be listed again
	builds   map[string]struct{}  // containers of build steps
	touched  map[string]struct{}  // containers that changed since the last update of the views

	facts         map[string]*fact
	pendingChecks queue // facts to check after eventTrust
	relists       [len(relistDelays)]queue

	// The events received since the list in flight was requested. They are applied
	// again after the list.
	replay    []event
	recording bool

	// The start of the connection, and whether its first list is pending. Until then,
	// the state of the previous connection is used.
	since      time.Time
	connecting bool

	// The times of the last start events as Unix nanoseconds, by container ID. May be
	// read without the watcher's mu.
	starts sync.Map

	// Reports whether a container is selected or is the gateway's own. Other containers
	// are marked stale instead of being listed again.
	wanted func(*container) bool
}

func newTable(wanted func(*container) bool) *table {
	t := &table{
		running:       make(map[string]*container),
		draining:      make(map[string]time.Time),
		dirty:         make(map[string]struct{}),
		builds:        make(map[string]struct{}),
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

// apply applies an event. A new state takes effect immediately. Other changes mark the
// container as dirty.
func (t *table) apply(e event, now time.Time) {
	if t.recording {
		t.replay = append(t.replay, e)
	}
	// The stream includes events from before the connection. They may be outdated, so
	// they only mark the container as dirty.
	past := e.at.Before(t.since)
	switch {
	case e.action == actionKill && !terminates(e.signal):
		// If the container stops, another event follows.
	case e.action == actionKill:
		t.drain(e, now)
		if past {
			t.markDirty(e.id)
		} else {
			t.touch(e.id)
		}
	case e.action == actionNetwork:
		if t.running[e.id] != nil { // nil: not running
			t.markDirty(e.id)
			t.relist(e.id, now)
		}
	case e.action == actionStart:
		t.starts.Store(e.id, e.at.UnixNano())
		if e.buildStep {
			t.builds[e.id] = struct{}{}
		}
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

// drain stops new requests to a container that received a terminating signal, until its
// drain ends.
func (t *table) drain(e event, now time.Time) {
	begun := now
	if e.at.Before(now) && now.Sub(e.at) < drainFor {
		begun = e.at // the drain starts at the time of the event
	}
	t.draining[e.id] = begun.Add(drainFor)
	t.expiry = sooner(t.expiry, t.draining[e.id])
}

// alter sets a container's state as reported by an event.
func (t *table) alter(id, state string, now time.Time) {
	t.believe(id, state, now)
	if c := t.running[id]; c != nil {
		altered := *c
		altered.state = state
		t.running[id] = &altered
		t.touch(id)
	}
}

// connect records the start of a connection at now.
func (t *table) connect(now time.Time) {
	t.since, t.connecting = now, true
}

// begin starts recording events while a list is requested.
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

// replace applies a list of the containers with these IDs. IDs missing from the list
// are removed from the table.
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

// end applies the recorded events again after a list.
func (t *table) end(now time.Time) {
	t.recording, t.connecting = false, false
	for _, e := range t.replay {
		t.apply(e, now)
	}
	t.replay = t.replay[:0]
}

// expire marks containers as dirty when their drain ends or recheck is due. It returns
// the time of the next such change, or zero.
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

// sooner returns the earlier of two times, ignoring zero times.
func sooner(a, b time.Time) time.Time {
	if a.IsZero() || (!b.IsZero() && b.Before(a)) {
		return b
	}
	return a
}

// restore removes the expired drain of a container that still runs.
func (t *table) restore(id string, now time.Time) {
	if until, ok := t.draining[id]; ok && !until.After(now) {
		delete(t.draining, id)
	}
}

func (t *table) remove(id string) {
	delete(t.draining, id)
	t.starts.Delete(id)
	delete(t.builds, id)
	delete(t.dirty, id)
	if t.running[id] != nil {
		delete(t.running, id)
		t.touch(id)
	}
}

// markDirty schedules a container to be listed again if it is wanted or unknown, else
// marks it as stale.
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
