package dockerupstreams

import "time"

// An event is something that happened to a container.
type event struct {
	id     string
	action action
	signal int       // of a kill; 0: unknown
	at     time.Time // by the engine's clock
}

type action uint8

const (
	actionOther   action = iota // whatever it was, the container must be listed again
	actionStart                 // runs
	actionKill                  // was sent a signal
	actionEnd                   // runs no more
	actionPause                 // stands still
	actionNetwork               // was attached to a network, or detached from one
)

// drainFor bounds how long a container receives no requests after a signal that
// ends most processes. It is longer than the ten seconds after which `docker
// stop` loses its patience, so that nothing is sent to a container that is about
// to be killed; and not endless, for a process may choose to live on.
const drainFor = 15 * time.Second

// terminates reports whether a signal asks a process to end. SIGHUP, SIGUSR1,
// SIGUSR2 and SIGWINCH (1, 10, 12, 28) are used to reload or to reopen logs.
func terminates(signal int) bool {
	switch signal {
	case 0, 2, 3, 6, 9, 15, 37: // unknown, INT, QUIT, ABRT, KILL, TERM, RTMIN+3 (systemd: halt)
		return true
	default:
		return false
	}
}

// table is what is known of an engine's running containers. It is kept by events
// and lists, which may contradict each other for a moment: a list tells how
// things were when the engine wrote it, and an event may overtake it.
type table struct {
	running  map[string]*container
	draining map[string]time.Time // until when, by our clock
	expiry   time.Time            // no drain ends before; zero: there is none
	dirty    map[string]struct{}  // must be listed again
	touched  map[string]struct{}  // changed since this was last emptied

	// The events since the list on its way was asked for: they are applied again
	// on top of it.
	replay    []event
	recording bool

	// When the connection began, and whether its first list is still to come: what
	// is known from before may be out of date, but it is whole.
	since      time.Time
	connecting bool

	// Whether anybody wants to know about a container. Others are marked stale
	// instead of being listed again.
	wanted func(*container) bool
}

func newTable(wanted func(*container) bool) *table {
	return &table{
		running:  make(map[string]*container),
		draining: make(map[string]time.Time),
		dirty:    make(map[string]struct{}),
		touched:  make(map[string]struct{}),
		wanted:   wanted,
	}
}

// apply takes in an event. What it says for certain has effect at once; what it
// leaves open waits for the next list.
func (t *table) apply(e event, now time.Time) {
	if t.recording {
		t.replay = append(t.replay, e)
	}
	// The stream begins in the past, where a container that runs well may have died
	// before. Such events say no more than that it is worth a look.
	past := e.at.Before(t.since)
	switch e.action {
	case actionKill:
		if !terminates(e.signal) {
			return // if it ends all the same, an event will say so
		}
		t.drain(e, now)
		if past {
			t.soil(e.id)
		} else {
			t.touch(e.id)
		}
	case actionEnd:
		if past {
			t.soil(e.id)
		} else {
			t.remove(e.id)
		}
	case actionPause:
		if past {
			t.soil(e.id)
		} else {
			t.pause(e.id)
		}
	case actionStart:
		if t.drains(e.id) {
			delete(t.draining, e.id)
			t.touch(e.id)
		}
		t.soil(e.id)
	case actionNetwork:
		if t.running[e.id] != nil { // otherwise it is not up yet, or no more
			t.soil(e.id)
		}
	default:
		t.soil(e.id)
	}
}

// drain keeps a container that was sent a signal from requests for a while.
func (t *table) drain(e event, now time.Time) {
	begun := now
	if e.at.Before(now) && now.Sub(e.at) < drainFor {
		begun = e.at // we hear of it late
	}
	until := begun.Add(drainFor)
	t.draining[e.id] = until
	if t.expiry.IsZero() || until.Before(t.expiry) {
		t.expiry = until
	}
}

// pause notes that a container stands still.
func (t *table) pause(id string) {
	if c := t.running[id]; c != nil {
		paused := *c
		paused.state = "paused"
		t.running[id] = &paused
		t.touch(id)
	}
}

// connect notes that a connection begins.
func (t *table) connect(now time.Time) {
	t.since, t.connecting = now, true
}

// begin notes that a list is being asked for.
func (t *table) begin() {
	t.recording, t.replay = true, t.replay[:0]
}

// replaceAll takes in a list of all running containers.
func (t *table) replaceAll(list []*container, now time.Time) {
	old := t.running
	t.running = make(map[string]*container, len(list))
	clear(t.dirty)
	for _, c := range list {
		t.running[c.id] = c
		t.restore(c.id, now)
		t.touch(c.id)
	}
	for id := range old {
		if t.running[id] == nil {
			t.remove(id)
			t.touch(id)
		}
	}
	t.end(now)
}

// replace takes in a list of the containers ids, of which those that do not run
// are missing.
func (t *table) replace(ids []string, list []*container, now time.Time) {
	listed := make(map[string]*container, len(list))
	for _, c := range list {
		listed[c.id] = c
	}
	for _, id := range ids {
		c := listed[id]
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

// end applies again what happened while the list was on its way.
func (t *table) end(now time.Time) {
	t.recording, t.connecting = false, false
	for _, e := range t.replay {
		t.apply(e, now)
	}
	t.replay = t.replay[:0]
}

// expire has those containers listed again that live on after a signal, and
// returns when the next one is due (zero: none).
func (t *table) expire(now time.Time) (next time.Time) {
	if t.expiry.After(now) {
		return t.expiry
	}
	for id, until := range t.draining {
		if !until.After(now) {
			t.dirty[id] = struct{}{}
			continue
		}
		if next.IsZero() || until.Before(next) {
			next = until
		}
	}
	t.expiry = next
	return next
}

// restore ends the drain of a container that a list shows running after its time.
func (t *table) restore(id string, now time.Time) {
	if until, ok := t.draining[id]; ok && !until.After(now) {
		delete(t.draining, id)
	}
}

func (t *table) remove(id string) {
	delete(t.draining, id)
	delete(t.dirty, id)
	if t.running[id] != nil {
		delete(t.running, id)
		t.touch(id)
	}
}

// soil has a container listed again, unless nobody wants it.
func (t *table) soil(id string) {
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
