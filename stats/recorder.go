package stats

import (
	"cmp"
	"maps"
	"math/bits"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Names of series that are not configured.
const (
	// DefaultRoute is the route of requests that no route matched.
	DefaultRoute = "_default"

	// Other is the route and the backend of everything beyond MaxSeries.
	Other = "_other"

	// NoBackend is the name in reports for the backend of requests without one.
	NoBackend = "_none"
)

// MaxSeries is the maximum number of pairs of route and backend that a recorder counts
// separately, which bounds memory and metrics. Further pairs are counted as Other.
const MaxSeries = 1000

// Recorder records the statistics of one gateway, for each route and backend, since it
// was created and in recent windows. Totals are computed when they are read.
//
// All methods are safe for concurrent use.
type Recorder struct {
	name   string
	began  time.Time
	shards int // per series

	mu     sync.Mutex
	series map[seriesKey]*Series // guarded by mu
	idle   int                   // how many of them have no holder; guarded by mu
	other  *Series               // nil until needed; guarded by mu
	limit  int

	log    atomic.Pointer[RequestLog] // nil: the log is not held
	logged int                        // number of holders; guarded by mu

	redacted redactedParams // in the log

	draining  sync.Mutex // held during a drain
	consumers consumers
}

type seriesKey struct{ route, backend string }

// maxShards bounds the memory on machines with many cores: that many shards are
// rarely contended.
const maxShards = 32

// NewRecorder creates an empty recorder for a gateway.
func NewRecorder(name string) *Recorder {
	return &Recorder{
		name:   strings.ToValidUTF8(name, "\uFFFD"),
		began:  time.Now(),
		shards: shardsFor(runtime.GOMAXPROCS(0)),
		series: make(map[seriesKey]*Series),
		limit:  MaxSeries,

		consumers: consumers{limit: MaxConsumers},
	}
}

// shardsFor returns twice the number of processors, rounded up to a power of two.
func shardsFor(procs int) int {
	return min(1<<bits.Len(uint(2*procs-1)), maxShards)
}

// Series returns the series of a route's requests to a backend, which is created if
// needed. The caller holds it until Release. It must not be called on the request
// path.
//
// When there are MaxSeries already, series without a holder are merged into Other to
// make room; if all are held, Other is returned.
func (rec *Recorder) Series(route, backend string) *Series {
	// Prometheus requires UTF-8.
	key := seriesKey{strings.ToValidUTF8(route, "\uFFFD"), strings.ToValidUTF8(backend, "\uFFFD")}
	rec.mu.Lock()
	defer rec.mu.Unlock()

	s, ok := rec.series[key]
	switch {
	case ok && s.refs == 0:
		rec.idle--
	case ok:
	case key == seriesKey{Other, Other}:
		s = rec.overflow()
	default:
		if len(rec.series) >= rec.limit && rec.idle > 0 {
			rec.retireIdle()
		}
		if len(rec.series) >= rec.limit {
			s = rec.overflow()
			break
		}
		s = newSeries(rec, key.route, key.backend)
		rec.series[key] = s
	}
	s.refs++
	return s
}

// Release releases a series that Series returned. Its statistics are kept.
func (rec *Recorder) Release(s *Series) {
	rec.mu.Lock()
	defer rec.mu.Unlock()
	s.refs--
	if s.refs == 0 && s != rec.other {
		rec.idle++
	}
}

// holdLog enables the request log until releaseLog.
func (rec *Recorder) holdLog() *RequestLog {
	rec.mu.Lock()
	defer rec.mu.Unlock()
	rec.logged++
	if rec.log.Load() == nil {
		rec.log.Store(newRequestLog(&rec.redacted))
	}
	return rec.log.Load()
}

// HoldLog returns the log of the gateway's requests, which exists until every holder
// has called release. Further calls of release do nothing.
func (rec *Recorder) HoldLog() (log *RequestLog, release func()) {
	return rec.holdLog(), sync.OnceFunc(rec.releaseLog)
}

func (rec *Recorder) releaseLog() {
	rec.mu.Lock()
	defer rec.mu.Unlock()
	if rec.logged--; rec.logged == 0 {
		rec.log.Store(nil)
	}
}

// overflow returns the series of everything beyond the limit. The caller holds rec.mu.
func (rec *Recorder) overflow() *Series {
	if rec.other == nil {
		rec.other = newSeries(rec, Other, Other)
	}
	return rec.other
}

// retireIdle merges series without a holder into the overflow. The caller holds rec.mu.
func (rec *Recorder) retireIdle() {
	for key, s := range rec.series {
		if s.refs == 0 {
			s.retire(rec.overflow())
			delete(rec.series, key)
		}
	}
	rec.idle = 0
}

// each calls f for every series, by route and backend, with Other last. No series is
// retired meanwhile, which would count it twice or not at all.
func (rec *Recorder) each(f func(*Series)) {
	rec.mu.Lock()
	defer rec.mu.Unlock()
	list := slices.SortedFunc(maps.Values(rec.series), func(a, b *Series) int {
		return cmp.Or(cmp.Compare(a.route, b.route), cmp.Compare(a.backend, b.backend))
	})
	if rec.other != nil {
		list = append(list, rec.other)
	}
	for _, s := range list {
		f(s)
	}
}

// now returns the time since the recorder was created. Reading the monotonic clock
// alone is cheaper than time.Now, and unaffected by clock changes.
func (rec *Recorder) now() time.Duration { return time.Since(rec.began) }

// Destruct implements the destructor of a usage pool: there is nothing to free.
func (rec *Recorder) Destruct() error { return nil }
