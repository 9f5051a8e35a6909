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

// Predefined names of routes and backends.
const (
	// DefaultRoute is the route of requests that no route matched.
	DefaultRoute = "_default"

	// Other is the route and the backend of all series beyond MaxSeries, and the consumer
	// of all traffic beyond MaxConsumers.
	Other = "_other"

	// NoBackend is the backend of requests without a backend, in reports.
	NoBackend = "_none"
)

// MaxSeries is the maximum number of series, which are pairs of route and backend. It
// limits memory use and the number of metrics. Further pairs are counted as Other.
const MaxSeries = 1000

// Recorder records the statistics of one gateway by route and backend, since its creation
// and in recent windows. Totals are computed on read.
//
// All methods are safe for concurrent use.
type Recorder struct {
	name   string
	began  time.Time
	shards int // per series

	mu     sync.Mutex
	series map[seriesKey]*Series // guarded by mu
	idle   int                   // number of series without a holder; guarded by mu
	other  *Series               // guarded by mu; nil until needed
	limit  int

	log    atomic.Pointer[RequestLog] // nil without a holder
	logged int                        // number of holders; guarded by mu

	redacted redactedParams // query parameters redacted in the log

	draining  sync.Mutex // held during a drain
	consumers consumers
}

type seriesKey struct{ route, backend string }

// maxShards limits memory use on machines with many cores. This many shards are rarely
// contended.
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

// shardsFor returns twice the number of processors, rounded up to a power of two and
// capped at maxShards.
func shardsFor(procs int) int {
	return min(1<<bits.Len(uint(2*procs-1)), maxShards)
}

// Series returns the series of a route and a backend, and creates it if needed. The
// caller holds it until Release. Series must not be called on the request path.
//
// If there are MaxSeries already, series without a holder are merged into Other to make
// room. If all have holders, Series returns Other.
func (rec *Recorder) Series(route, backend string) *Series {
	// Prometheus requires valid UTF-8.
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

// Release releases a series returned by Series. Its statistics are kept.
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

// HoldLog returns the gateway's request log, which exists until every holder has called
// release. Further calls of release have no effect.
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

// overflow returns the series Other. The caller holds rec.mu.
func (rec *Recorder) overflow() *Series {
	if rec.other == nil {
		rec.other = newSeries(rec, Other, Other)
	}
	return rec.other
}

// retireIdle merges series without a holder into Other. The caller holds rec.mu.
func (rec *Recorder) retireIdle() {
	for key, s := range rec.series {
		if s.refs == 0 {
			s.retire(rec.overflow())
			delete(rec.series, key)
		}
	}
	rec.idle = 0
}

// each calls f for every series, sorted by route and backend, with Other last. No series
// is retired in the meantime, because it would then be counted twice or not at all.
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

// now returns the time since the creation of the recorder. Reading only the monotonic
// clock is cheaper than time.Now, and unaffected by clock changes.
func (rec *Recorder) now() time.Duration { return time.Since(rec.began) }

// Destruct implements caddy.Destructor. There is nothing to release.
func (rec *Recorder) Destruct() error { return nil }
