package dashboard

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/rgate/rgate/bandwidth/store"
	"github.com/rgate/rgate/stats"
)

// account is the interface of the usage store that the page uses.
type account interface {
	Usage(context.Context, store.Query) ([]store.Point, error)
	Requests(context.Context, store.Query) ([]store.RequestPoint, error)
	Names(ctx context.Context, since time.Time) (services, routes, consumers, gateways []string, err error)
}

// figures holds the recorded statistics of a span.
type figures struct {
	span

	// Values by window. null: nothing was recorded.
	requests, errors []float64
	egress, ingress  []series // bytes of the largest services, and of all others

	// Percentiles of request durations in seconds. Their windows may be longer.
	timing        span
	p50, p95, p99 []float64

	total    sums
	overall  percentiles
	services map[string]*sums
	routes   []routeSums // slowest first

	// The names offered in the filters.
	serviceNames, routeNames, gatewayNames []string
}

// sums holds totals over a span.
type sums struct {
	requests, errors uint64
	seconds          float64
	bytes            store.Bytes
	lastUsed         time.Time // the start of the latest window with requests
}

func (s *sums) addRequests(p *store.RequestPoint) {
	s.requests += p.Requests
	s.errors += p.Errors
	s.seconds += p.Seconds
	if p.Requests > 0 && p.Start.After(s.lastUsed) {
		s.lastUsed = p.Start
	}
}

// errorShare returns the ratio of errors to requests, or null without requests.
func (s *sums) errorShare() float64 { return ratio(float64(s.errors), float64(s.requests)) }
func (s *sums) average() float64    { return ratio(s.seconds, float64(s.requests)) }

func ratio(a, b float64) float64 {
	if b == 0 {
		return null
	}
	return a / b
}

type routeKey struct{ service, route string }

type routeSums struct {
	routeKey
	sums
	percentiles
}

// percentiles holds percentiles of durations in seconds. null: no requests.
type percentiles struct{ p50, p95, p99 float64 }

// merge merges encoded distributions. It returns nil if one cannot be decoded, for
// example because another version wrote it.
func merge(sketches [][]byte) []byte {
	if len(sketches) == 1 {
		return sketches[0]
	}
	merged, err := stats.MergeSketches(sketches...)
	if err != nil {
		return nil
	}
	return merged
}

func percentilesOf(sketch []byte) percentiles {
	if len(sketch) > 0 {
		if q, err := stats.Quantiles(sketch, 0.5, 0.95, 0.99); err == nil {
			return percentiles{q[0], q[1], q[2]}
		}
	}
	return percentiles{null, null, null}
}

const (
	layers      = 6 // the layers of a stacked picture, without the layer for all others
	slowestSeen = 10
)

// emptyFigures returns figures without data for the span of params.
func emptyFigures(params pageParams, now time.Time, in *time.Location) figures {
	s, timing := spanOf(params.timeRange, params.step, now, in), spanOf(params.timeRange, params.timing, now, in)
	return figures{
		span: s, requests: s.nulls(), errors: s.nulls(), services: make(map[string]*sums),
		timing: timing, p50: timing.nulls(), p95: timing.nulls(), p99: timing.nulls(), overall: percentilesOf(nil),
	}
}

// collect reads the figures. The distributions by window are read concurrently with the
// other figures, because they take longest.
func (f *figures) collect(ctx context.Context, from account, params pageParams) error {
	both, ctx := errgroup.WithContext(ctx)
	both.Go(func() error { return f.timeWindows(ctx, from, params) })
	both.Go(func() error { return f.sumUp(ctx, from, params) })
	return both.Wait()
}

// sumUp reads requests, bytes, the slowest routes and the names.
func (f *figures) sumUp(ctx context.Context, from account, params pageParams) (err error) {
	q := store.Query{
		Filter: params.filter(), From: f.from, To: f.end(), Step: f.step,
		GroupBy: []store.Dimension{store.ByService, store.ByRoute}, NoSketches: true,
	}
	bytes, err := from.Usage(ctx, q)
	if err != nil {
		return err
	}
	f.weigh(bytes, params)
	requests, err := from.Requests(ctx, q)
	if err != nil {
		return err
	}
	f.count(requests)
	if err := f.timeRoutes(ctx, from, params); err != nil {
		return err
	}
	f.serviceNames, f.routeNames, _, f.gatewayNames, err = from.Names(ctx, f.from)
	return err
}

// timeWindows reads the request durations, by window and in total.
func (f *figures) timeWindows(ctx context.Context, from account, params pageParams) error {
	s := f.timing
	points, err := from.Requests(ctx, store.Query{Filter: params.filter(), From: s.from, To: s.end(), Step: s.step})
	if err != nil {
		return err
	}
	sketches := make([][]byte, 0, s.n)
	for i := range points {
		if at := s.index(points[i].Start); at >= 0 {
			p := percentilesOf(points[i].Sketch)
			f.p50[at], f.p95[at], f.p99[at] = p.p50, p.p95, p.p99
			sketches = append(sketches, points[i].Sketch)
		}
	}
	f.overall = percentilesOf(merge(sketches))
	return nil
}

// timeRoutes reads the request durations of the slowest routes.
func (f *figures) timeRoutes(ctx context.Context, from account, params pageParams) error {
	if len(f.routes) == 0 {
		return nil
	}
	q := store.Query{
		Filter: params.filter(), From: f.from, To: f.end(), Step: params.whole,
		GroupBy: []store.Dimension{store.ByService, store.ByRoute},
	}
	for _, one := range f.routes {
		q.Routes = append(q.Routes, one.route)
	}
	points, err := from.Requests(ctx, q)
	if err != nil {
		return err
	}
	sketches := make(map[routeKey][][]byte)
	for _, p := range points {
		key := routeKey{p.Service, p.Route}
		sketches[key] = append(sketches[key], p.Sketch)
	}
	for i := range f.routes {
		f.routes[i].percentiles = percentilesOf(merge(sketches[f.routes[i].routeKey]))
	}
	return nil
}

// count aggregates the requests and selects the slowest routes.
func (f *figures) count(points []store.RequestPoint) {
	byRoute := make(map[routeKey]*routeSums)
	for i := range points {
		p := &points[i]
		at := f.index(p.Start)
		if at < 0 {
			continue
		}
		f.requests[at] = float64(p.Requests) + orZero(f.requests[at])
		f.errors[at] = float64(p.Errors) + orZero(f.errors[at])
		key := routeKey{p.Service, p.Route}
		if byRoute[key] == nil {
			byRoute[key] = &routeSums{routeKey: key}
		}
		for _, sum := range []*sums{&f.total, f.service(p.Service), &byRoute[key].sums} {
			sum.addRequests(p)
		}
	}
	for _, one := range byRoute {
		if one.requests > 0 {
			f.routes = append(f.routes, *one)
		}
	}
	slices.SortFunc(f.routes, func(a, b routeSums) int {
		return cmp.Or(cmp.Compare(b.average(), a.average()), cmp.Compare(a.route, b.route), cmp.Compare(a.service, b.service))
	})
	f.routes = f.routes[:min(len(f.routes), slowestSeen)]
}

func orZero(v float64) float64 {
	if isNull(v) {
		return 0
	}
	return v
}

func (f *figures) service(name string) *sums {
	if f.services[name] == nil {
		f.services[name] = new(sums)
	}
	return f.services[name]
}

// weigh aggregates the bytes by service, or by route if a service is selected.
func (f *figures) weigh(points []store.Point, params pageParams) {
	name := func(p *store.Point) string { return p.Service }
	if params.service != "" {
		name = func(p *store.Point) string { return p.Route }
	}
	totals := make(map[string]store.Bytes)
	for i := range points {
		p := &points[i]
		sum := totals[name(p)]
		sum.Add(p.Bytes)
		totals[name(p)] = sum
		f.total.bytes.Add(p.Bytes)
		f.service(p.Service).bytes.Add(p.Bytes)
	}
	place := placesOf(totals, f.total.bytes)
	f.egress, f.ingress = f.layersOf(place), f.layersOf(place)
	for i := range points {
		p := &points[i]
		at, layer := f.index(p.Start), place[name(p)]
		if at < 0 {
			continue
		}
		f.add(f.egress, layer.index, at, float64(p.Egress))
		f.add(f.ingress, layer.index, at, float64(p.Ingress))
	}
}

// layer is the layer of a name in a stacked picture.
type layer struct {
	index int
	name  string
}

// placesOf assigns layers to the names with the most bytes in either direction, and one
// layer to all others. Layers are sorted by name, so that colors do not change with the
// order of usage.
func placesOf(totals map[string]store.Bytes, all store.Bytes) map[string]layer {
	share := func(name string) float64 {
		b := totals[name]
		return max(float64(b.Egress)/float64(max(all.Egress, 1)), float64(b.Ingress)/float64(max(all.Ingress, 1)))
	}
	names := slices.SortedFunc(maps.Keys(totals), func(a, b string) int {
		return cmp.Or(cmp.Compare(share(b), share(a)), cmp.Compare(a, b))
	})
	largest := names[:min(len(names), layers)]
	slices.Sort(largest)
	places := make(map[string]layer, len(names))
	for i, name := range largest {
		places[name] = layer{i, name}
	}
	for _, name := range names[len(largest):] {
		places[name] = layer{layers, ""}
	}
	return places
}

// layersOf returns a series without data for each layer.
func (f *figures) layersOf(places map[string]layer) []series {
	var all []series
	for _, l := range places {
		for len(all) <= l.index {
			all = append(all, series{values: f.nulls()})
		}
		all[l.index].name = cmp.Or(l.name, all[l.index].name)
	}
	for i := range all {
		all[i].class = classes[min(i, layers)]
		if i == layers {
			all[i].name = "others"
		} else if all[i].name == "" {
			all[i].name = unnamed
		}
	}
	return all
}

// classes lists the CSS classes of the layers' colors. The last is gray.
var classes = [layers + 1]string{"c1", "c2", "c3", "c4", "c5", "c6", "c0"}

// unnamed is shown for requests without a service or a route.
const unnamed = "(none)"

// add adds v to a window of a layer. In the other layers, a window without data becomes
// 0.
func (f *figures) add(all []series, index, at int, v float64) {
	for i := range all {
		if isNull(all[i].values[at]) {
			all[i].values[at] = 0
		}
	}
	all[index].values[at] += v
}
