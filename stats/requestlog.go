package stats

import (
	"encoding/json"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// RequestLog keeps the last LogSize requests, responses and errors of a gateway in
// memory. Logging a request allocates nothing, and only contends for the slot that it
// writes. All methods are safe for concurrent use.
type RequestLog struct {
	next                        atomic.Uint64
	requests, responses, errors entries
	redacted                    *redactedParams

	following atomic.Int32 // number of followers
	mu        sync.Mutex
	followers map[chan LogEntry]struct{} // guarded by mu
}

// LogSize is the number of entries of each kind that a request log keeps.
const LogSize = 1000

// LogEntry is a request, or the response to one.
type LogEntry struct {
	// The number of the request, from 1.
	ID uint64 `json:"id"`

	// The time at which the request arrived, or its response ended.
	Time time.Time `json:"time"`

	// The route that matched; `_default` if none did.
	Route string `json:"route"`

	// The backend; empty for requests without one.
	Service string `json:"service"`

	// The container of the last attempt; empty for static addresses.
	Container string `json:"container,omitempty"`

	Method string `json:"method"`
	Host   string `json:"host"`

	// Path and query, with values that may be credentials redacted.
	URL string `json:"url"`

	// The address of the connection.
	Remote string `json:"remote"`

	// The X-Request-ID of the response, if it has one.
	RequestID string `json:"request_id,omitempty"`

	// The bytes of the request's body, -1 if unknown; of a response, those of its body.
	Size int64 `json:"size"`

	// The status of a response; see Series.Serve.
	Status int `json:"status,omitempty"`

	// The duration until the response ended.
	Took time.Duration `json:"-"`

	// Why the backend did not respond.
	Error string `json:"error,omitempty"`
}

// MarshalJSON adds the duration in milliseconds to responses.
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

func newRequestLog(redacted *redactedParams) *RequestLog {
	return &RequestLog{
		redacted: redacted,
		requests: newEntries(LogSize), responses: newEntries(LogSize), errors: newEntries(LogSize),
		followers: make(map[chan LogEntry]struct{}),
	}
}

// begin logs a request and returns its ID.
func (l *RequestLog) begin(e *LogEntry) uint64 {
	e.ID = l.next.Add(1)
	l.requests.put(e)
	return e.ID
}

// end logs a response.
func (l *RequestLog) end(e *LogEntry) {
	l.responses.put(e)
	if e.Status >= 400 || e.Error != "" {
		l.errors.put(e)
	}
	if l.following.Load() > 0 {
		l.publish(*e)
	}
}

// publish sends a response to the followers whose channels have room.
func (l *RequestLog) publish(e LogEntry) {
	e.URL = l.redacted.redact(e.URL)
	l.mu.Lock()
	defer l.mu.Unlock()
	for follower := range l.followers {
		select {
		case follower <- e:
		default: // the follower is too slow
		}
	}
}

// Follow returns a channel that receives every response from now on, until stop is
// called. A slow receiver misses some.
func (l *RequestLog) Follow() (responses <-chan LogEntry, stop func()) {
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

// LogQuery selects entries. The zero value selects all of them.
type LogQuery struct {
	Service string    // of this backend
	Status  int       // with this status, or below 10 with this first digit
	Since   time.Time // not older than this
}

// Matches reports whether an entry is selected. Requests have no status yet, and match
// any status.
func (q *LogQuery) Matches(e *LogEntry) bool {
	return (q.Service == "" || q.Service == e.Service) &&
		(q.Status == 0 || e.Status == 0 || q.Status == e.Status || q.Status == e.Status/100) &&
		!e.Time.Before(q.Since)
}

// LogReport is the content of a request log, the newest entries first. If a status is
// selected, the requests are those whose response has it.
type LogReport struct {
	Requests  []LogEntry `json:"requests"`
	Responses []LogEntry `json:"responses"`
	Errors    []LogEntry `json:"errors"`
}

// Report returns the selected entries.
func (l *RequestLog) Report(q LogQuery) LogReport {
	report := LogReport{l.requests.list(q), l.responses.list(q), l.errors.list(q)}
	if q.Status != 0 {
		selected := make(map[uint64]bool, len(report.Responses))
		for _, list := range [][]LogEntry{report.Responses, report.Errors} { // the errors go back further
			for i := range list {
				selected[list[i].ID] = true
			}
		}
		report.Requests = slices.DeleteFunc(report.Requests, func(e LogEntry) bool { return !selected[e.ID] })
	}
	for _, list := range [][]LogEntry{report.Requests, report.Responses, report.Errors} {
		for i := range list {
			list[i].URL = l.redacted.redact(list[i].URL)
		}
	}
	return report
}

// entries is a ring of the last entries. The next one replaces the oldest.
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
	if seq > slot.seq { // else a newer entry has the slot already
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
