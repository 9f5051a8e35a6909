package stats

import (
	"encoding/json"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// RequestLog keeps the last requests, answers and errors of a gateway in memory,
// so many of each. Taking a request down allocates nothing, and waits for nobody
// but those who write or read the same place. All methods are safe for concurrent
// use.
type RequestLog struct {
	next                        atomic.Uint64
	requests, responses, errors entries
	concealed                   *concealed

	following atomic.Int32 // how many follow
	mu        sync.Mutex
	followers map[chan LogEntry]struct{} // guarded by mu
}

// LogSize is how many entries of each kind a request log keeps.
const LogSize = 1000

// LogEntry is a request, or the answer to one.
type LogEntry struct {
	// Tells requests apart, from 1 on.
	ID uint64 `json:"id"`

	// When the request came, or was answered.
	Time time.Time `json:"time"`

	// The route that took it; `_default` if none did.
	Route string `json:"route"`

	// The backend that it went to; empty if it went to none.
	Service string `json:"service"`

	// Where the last attempt went; empty for static addresses.
	Container string `json:"container,omitempty"`

	Method string `json:"method"`
	Host   string `json:"host"`

	// Path and query, in which what looks like a credential is replaced.
	URL string `json:"url"`

	// The address of the connection.
	Remote string `json:"remote"`

	// The X-Request-ID of the answer, if it has one.
	RequestID string `json:"request_id,omitempty"`

	// Bytes of the request's body, -1 if it did not say; in an answer, those of the
	// answer's.
	Size int64 `json:"size"`

	// Of an answer; see Series.Serve.
	Status int `json:"status,omitempty"`

	// How long the answer took.
	Took time.Duration `json:"-"`

	// Why the backend did not answer.
	Error string `json:"error,omitempty"`
}

// MarshalJSON writes an answer with its duration in milliseconds.
func (e LogEntry) MarshalJSON() ([]byte, error) {
	type plain LogEntry
	if e.Status == 0 {
		return json.Marshal(plain(e))
	}
	return json.Marshal(struct {
		plain
		Took float64 `json:"took_ms"`
	}{plain(e), milliseconds(e.Took.Seconds())})
}

func newRequestLog(hidden *concealed) *RequestLog {
	return &RequestLog{
		concealed: hidden,
		requests:  newEntries(LogSize), responses: newEntries(LogSize), errors: newEntries(LogSize),
		followers: make(map[chan LogEntry]struct{}),
	}
}

// begin takes a request down and returns its ID.
func (l *RequestLog) begin(e *LogEntry) uint64 {
	e.ID = l.next.Add(1)
	l.requests.put(e)
	return e.ID
}

// end takes an answer down.
func (l *RequestLog) end(e *LogEntry) {
	l.responses.put(e)
	if e.Status >= 400 || e.Error != "" {
		l.errors.put(e)
	}
	if l.following.Load() > 0 {
		l.tell(*e)
	}
}

// tell passes an answer on to those that follow and keep up.
func (l *RequestLog) tell(e LogEntry) {
	e.URL = l.concealed.redact(e.URL)
	l.mu.Lock()
	defer l.mu.Unlock()
	for follower := range l.followers {
		select {
		case follower <- e:
		default: // it is too slow for all of them
		}
	}
}

// Follow returns a channel that gets every answer from now on, until stop is
// called. Who reads too slowly misses some.
func (l *RequestLog) Follow() (answers <-chan LogEntry, stop func()) {
	follower := make(chan LogEntry, 256)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.followers[follower] = struct{}{}
	l.following.Add(1)
	return follower, sync.OnceFunc(func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.followers, follower)
		l.following.Add(-1)
	})
}

// LogQuery says which entries are wanted. The zero value asks for all of them.
type LogQuery struct {
	Service string    // of this backend
	Status  int       // with this status, or below 10 with this first digit
	Since   time.Time // not older than this
}

// Matches reports whether an entry is wanted. Requests have no status yet, and may be
// wanted whatever that will be.
func (q *LogQuery) Matches(e *LogEntry) bool {
	return (q.Service == "" || q.Service == e.Service) &&
		(q.Status == 0 || e.Status == 0 || q.Status == e.Status || q.Status == e.Status/100) &&
		!e.Time.Before(q.Since)
}

// LogReport is what a request log has, the newest first. If a status is asked for, the
// requests are those that were answered with it.
type LogReport struct {
	Requests  []LogEntry `json:"requests"`
	Responses []LogEntry `json:"responses"`
	Errors    []LogEntry `json:"errors"`
}

// Report returns the entries that are wanted.
func (l *RequestLog) Report(q LogQuery) LogReport {
	report := LogReport{l.requests.list(q), l.responses.list(q), l.errors.list(q)}
	if q.Status != 0 {
		answered := make(map[uint64]bool, len(report.Responses))
		for _, list := range [][]LogEntry{report.Responses, report.Errors} { // the errors go back further
			for i := range list {
				answered[list[i].ID] = true
			}
		}
		report.Requests = slices.DeleteFunc(report.Requests, func(e LogEntry) bool { return !answered[e.ID] })
	}
	for _, list := range [][]LogEntry{report.Requests, report.Responses, report.Errors} {
		for i := range list {
			list[i].URL = l.concealed.redact(list[i].URL)
		}
	}
	return report
}

// entries is a ring of the last entries. The next one takes the place of the oldest.
type entries struct {
	next  atomic.Uint64
	slots []entrySlot
}

type entrySlot struct {
	mu    sync.Mutex
	seq   uint64   // guarded by mu; 0: empty
	entry LogEntry // guarded by mu
}

func newEntries(size int) entries { return entries{slots: make([]entrySlot, size)} }

func (r *entries) put(e *LogEntry) {
	seq := r.next.Add(1)
	slot := &r.slots[seq%uint64(len(r.slots))]
	slot.mu.Lock()
	if seq > slot.seq { // who came a whole turn later was faster
		slot.seq, slot.entry = seq, *e
	}
	slot.mu.Unlock()
}

func (r *entries) list(q LogQuery) []LogEntry {
	type numbered struct {
		seq uint64
		LogEntry
	}
	var found []numbered
	for i := range r.slots {
		slot := &r.slots[i]
		slot.mu.Lock()
		if slot.seq > 0 && q.Matches(&slot.entry) {
			found = append(found, numbered{slot.seq, slot.entry})
		}
		slot.mu.Unlock()
	}
	slices.SortFunc(found, func(a, b numbered) int {
		if a.seq > b.seq {
			return -1
		}
		return 1
	})
	list := make([]LogEntry, len(found))
	for i, one := range found {
		list[i] = one.LogEntry
	}
	return list
}
