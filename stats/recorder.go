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

// Names of series that no configuration has chosen.
const (
	// DefaultRoute is the route of requests that no route matched.
	DefaultRoute = "_default"

	// Other is the route and the backend of everything beyond MaxSeries.
	Other = "_other"

	// NoBackend is how reports name the backend of requests that went to none.
	NoBackend = "_none"
)

// MaxSeries is how many pairs of route and backend a recorder tells apart, so
// that memory and metrics stay bounded whatever the configuration. Further ones
// are counted together as Other.
const MaxSeries = 1000

// Recorder keeps the statistics of one gateway: what each route's requests to
// each backend came to, since it was made and in the last minutes. Everything
// else, such as totals, is put together when somebody reads.
//
// All methods are safe for concurrent use.
type Recorder struct {
	name    string
	began   time.Time
	stripes int // per series

	mu     sync.Mutex
	series map[seriesKey]*Series // guarded by mu
	idle   int                   // how many of them nobody holds; guarded by mu
	other  *Series               // nil until needed; guarded by mu
	limit  int

	log    atomic.Pointer[RequestLog] // nil: nobody wants one
	logged int                        // how many do; guarded by mu

	concealed concealed // in the log

	draining  sync.Mutex // held by who drains
	consumers consumers
}

type seriesKey struct{ route, backend string }

// maxStripes bounds the memory on machines with many cores; beyond that many,
// stripes are hardly ever contended anyway.
const maxStripes = 32

// NewRecorder makes an empty recorder for the gateway of that name.
func NewRecorder(name string) *Recorder {
	return &Recorder{
		name:    strings.ToValidUTF8(name, "\uFFFD"),
		began:   time.Now(),
		stripes: stripesFor(runtime.GOMAXPROCS(0)),
		series:  make(map[seriesKey]*Series),
		limit:   MaxSeries,

		consumers: consumers{limit: MaxConsumers},
	}
}

// stripesFor returns twice the number of processors, rounded up to a power of two.
func stripesFor(procs int) int {
	return min(1<<bits.Len(uint(2*procs-1)), maxStripes)
}

// Series returns the series of a route's requests to a backend, which is made
// if need be. Who gets it holds it until Release. It must not be called on the
// request path.
//
// When there are MaxSeries already, those that nobody holds any more are merged
// into Other to make room; if all are held, the new one is Other.
func (rec *Recorder) Series(route, backend string) *Series {
	// Metrics admit no other text.
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

// Release gives up a series that Series returned. Its figures stay.
func (rec *Recorder) Release(s *Series) {
	rec.mu.Lock()
	defer rec.mu.Unlock()
	s.refs--
	if s.refs == 0 && s != rec.other {
		rec.idle++
	}
}

// holdLog makes sure that requests are logged until releaseLog.
func (rec *Recorder) holdLog() *RequestLog {
	rec.mu.Lock()
	defer rec.mu.Unlock()
	rec.logged++
	if rec.log.Load() == nil {
		rec.log.Store(newRequestLog(&rec.concealed))
	}
	return rec.log.Load()
}

// HoldLog returns the log of the gateway's requests, which is kept until all who hold
// it have released it. A second call of release does nothing.
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

// retireIdle merges what nobody holds into the overflow. The caller holds rec.mu.
func (rec *Recorder) retireIdle() {
	for key, s := range rec.series {
		if s.refs == 0 {
			s.retire(rec.overflow())
			delete(rec.series, key)
		}
	}
	rec.idle = 0
}

// each calls f for every series, by route and backend and Other last. It keeps
// series from being retired meanwhile, which would count them twice or not at all.
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

// now is the time since the recorder was made. Reading the monotonic clock
// alone is cheaper than time.Now, and windows do not jump when a clock is set.
func (rec *Recorder) now() time.Duration { return time.Since(rec.began) }

// Destruct implements the destructor of a usage pool: there is nothing to free.
func (rec *Recorder) Destruct() error { return nil }
