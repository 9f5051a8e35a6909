package stats

import (
	"encoding/json"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// RequestLog keeps the last LogSize requests, responses and errors of a gateway in
// memory. Logging a request does not allocate, and contends only for the slot that it
// writes. All methods are safe for concurrent use.
type RequestLog struct {
	next                        atomic.Uint64
	requests, responses, errors entries
	redacted                    *redactedParams

	following atomic.Int32 // number of followers
	mu        sync.Mutex
	followers map[chan LogEntry]struct{} // guarded by mu
}

// LogSize is the maximum number of entries of each kind in a request log.
const LogSize = 1000

// LogEntry is a logged request or response.
type LogEntry struct {
	// The number of the request, starting from 1.
	ID uint64 `json:"id"`

	// The time when the request arrived or when the response ended.
	Time time.Time `json:"time"`

	// The matched route, or `_default` if no route matched.
	Route string `json:"route"`

	// The backend. Empty for requests without a backend.
	Service string `json:"service"`

	// The container of the last attempt. Empty for static addresses.
	Container string `json:"container,omitempty"`

	Method string `json:"method"`
	Host   string `json:"host"`

	// The path and query. Values that can contain credentials are redacted.
	URL string `json:"url"`

	// The remote address of the connection.
	Remote string `json:"remote"`

	// The X-Request-ID of the response, if any.
	RequestID string `json:"request_id,omitempty"`

	// The size of the body in bytes. -1 if the size of a request body is unknown.
	Size int64 `json:"size"`

	// The status code of a response; see Series.Serve. 0 for requests.
	Status int `json:"status,omitempty"`

	// The duration until the end of the response.
	Took time.Duration `json:"-"`

	// The reason why the backend failed.
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
		default: // drop the response for a slow follower
		}
	}
}

// Follow returns a channel that receives every later response until stop is called. A
// slow receiver misses responses.
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

// LogQuery selects log entries. The zero value selects all entries.
type LogQuery struct {
	Service string    // backend; empty for all
	Status  int       // status code; a single digit matches the whole class, 0 all
	Since   time.Time // time of the oldest entry
}

// Matches reports whether the query selects an entry. Requests have no status yet and
// match any status.
func (q *LogQuery) Matches(e *LogEntry) bool {
	return (q.Service == "" || q.Service == e.Service) &&
		(q.Status == 0 || e.Status == 0 || q.Status == e.Status || q.Status == e.Status/100) &&
		!e.Time.Before(q.Since)
}

// LogReport is the content of a request log, newest entries first. If the query has a
// status, it contains only the requests whose response matches.
type LogReport struct {
	Requests  []LogEntry `json:"requests"`
	Responses []LogEntry `json:"responses"`
	Errors    []LogEntry `json:"errors"`
}

// Report returns the entries that a query selects.
func (l *RequestLog) Report(q LogQuery) LogReport {
	report := LogReport{l.requests.list(q), l.responses.list(q), l.errors.list(q)}
	if q.Status != 0 {
		selected := make(map[uint64]bool, len(report.Responses))
		for _, list := range [][]LogEntry{report.Responses, report.Errors} { // errors are kept longer than responses
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

// entries is a ring buffer of the last entries.
type entries struct {
	next  atomic.Uint64
	slots []entrySlot
}

type entrySlot struct {
	mu    sync.Mutex
	seq   uint64   // guarded by mu; 0 if the slot is empty
	entry LogEntry // guarded by mu
}

func newEntries(size int) entries { return entries{slots: make([]entrySlot, size)} }

func (r *entries) put(e *LogEntry) {
	seq := r.next.Add(1)
	slot := &r.slots[seq%uint64(len(r.slots))]
	slot.mu.Lock()
	if seq > slot.seq { // otherwise a newer entry has been written
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
