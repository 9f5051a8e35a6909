package dockerupstreams

import (
	"slices"
	"sync"
	"time"
)

// event is an event of a container.
type event struct {
	id     string
	action action
	signal Signal    // the signal of actionKill; 0: unknown
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
	actionHealthy               // the health check passes again
	actionNetwork               // attached to or detached from a network
)

const (
	// The default of Endpoint.Drain. It is longer than usual times after which a
	// container that is being stopped is sent SIGKILL. It is limited because a process
	// may ignore the signal.
	drainFor = 5 * time.Minute

	// The maximum drain after an unknown signal. Podman does not report the signal,
	// which may be one that reloads a configuration.
	drainAfterUnknown = 15 * time.Second
)

// table holds an engine's running containers. Events and lists update it. They may
// briefly contradict each other: an event can arrive before a list that the engine
// wrote earlier.
type table struct {
	running  map[string]*container
	draining map[string]time.Time // the end of the drain, by the gateway's clock
	expiry   time.Time            // the earliest end of a drain; zero: none
	restored []*container         // containers whose drain has ended although they still run

	stop        stopOptions
	stopSignals map[string]Signal   // the stop signals of containers, by ID; 0: unknown
	uninspected map[string]struct{} // wanted containers without an entry in stopSignals
	others      map[string][]kill   // received signals that stop no container as far as known, by container ID

	dirty   map[string]struct{} // containers that must be listed again
	builds  map[string]struct{} // containers of build steps
	touched map[string]struct{} // containers that changed since the last update of the views

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
		stopSignals:   make(map[string]Signal),
		uninspected:   make(map[string]struct{}),
		others:        make(map[string][]kill),
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
	switch e.action {
	case actionStart, actionUnpause, actionHealthy:
		t.endDrain(e.id)
	}
	switch {
	case e.action == actionKill:
		k := t.killOf(e, past, now)
		if past && !k.until.After(now) {
			break // its drain has ended
		}
		if t.kill(e.id, k) && past {
			t.markDirty(e.id)
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
		if !past {
			t.believe(e.id, "running", now)
		}
		t.markDirty(e.id)
	case past || e.action == actionOther || e.action == actionHealthy:
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

// kill is a signal sent to a container.
type kill struct {
	signal Signal
	until  time.Time // the end of the drain if the signal stops the container
}

// killOf returns the signal in an event. The drain of a past event begins at the time of
// the event, unless the clocks of the gateway and the engine differ too much.
func (t *table) killOf(e event, past bool, now time.Time) kill {
	drain := t.stop.drain.Or(drainFor)
	if e.signal == 0 {
		drain = min(drain, drainAfterUnknown)
	}
	begun := now
	if past && t.since.Sub(e.at) < t.stop.drain.Or(drainFor) {
		begun = e.at
	}
	return kill{e.signal, begun.Add(drain)}
}

// kill stops new requests to a container that was sent a signal that stops it, and
// reports whether it did. It remembers other signals: the label and the stop signal of
// the container may not be known yet.
func (t *table) kill(id string, k kill) bool {
	if t.stop.drain.IsOff() {
		return false
	}
	if t.stops(id, k.signal) {
		t.draining[id] = k.until
		t.expiry = sooner(t.expiry, k.until)
		t.touch(id)
		return true
	}
	others := slices.DeleteFunc(t.others[id], func(other kill) bool { return other.signal == k.signal })
	t.others[id] = append(others, k)
	return false
}

// stops reports whether a signal stops a container, as far as known.
func (t *table) stops(id string, signal Signal) bool {
	if terminates(signal) || t.stop.has(signal) || t.stopSignals[id] == signal {
		return true
	}
	c := t.running[id]
	if c == nil {
		return false
	}
	labeled, _ := stopSignals(c.labels) // containers with an invalid label are rejected
	return slices.Contains(labeled, signal)
}

// review applies remembered signals again after the signals that stop a container may
// have become known.
func (t *table) review(id string, now time.Time) {
	others := t.others[id]
	delete(t.others, id)
	for _, k := range others {
		if k.until.After(now) {
			t.kill(id, k)
		}
	}
}

// endDrain allows new requests to a container.
func (t *table) endDrain(id string) {
	delete(t.others, id)
	if t.drains(id) {
		delete(t.draining, id)
		t.touch(id)
	}
}

// inspected records the stop signal of a container. 0: unknown.
func (t *table) inspected(id string, signal Signal, now time.Time) {
	delete(t.uninspected, id)
	if t.running[id] != nil {
		t.stopSignals[id] = signal
		t.review(id, now)
	}
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
			t.review(c.id, now)
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
	for id := range t.others {
		if t.running[id] == nil {
			delete(t.others, id)
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
		t.review(id, now)
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
		t.restored = append(t.restored, t.running[id])
	}
}

// forget removes all containers.
func (t *table) forget() {
	for id := range t.running {
		t.remove(id)
	}
}

func (t *table) remove(id string) {
	delete(t.draining, id)
	delete(t.stopSignals, id)
	delete(t.uninspected, id)
	delete(t.others, id)
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
