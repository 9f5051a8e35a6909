package dashboard

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"time"

	"github.com/rgate/rgate/bandwidth"
	"github.com/rgate/rgate/stats"
)

// account is what the page reads of a ledger.
type account interface {
	Usage(context.Context, bandwidth.Query) ([]bandwidth.Point, error)
	Requests(context.Context, bandwidth.Query) ([]bandwidth.RequestPoint, error)
	Names(ctx context.Context, since time.Time) (services, routes, consumers, gateways []string, err error)
}

// figures are what the account has of a span.
type figures struct {
	span

	// By window; null where nothing was recorded.
	requests, errors []float64
	p50, p95, p99    []float64 // seconds
	egress, ingress  []series  // bytes of the largest services, and of the others

	total    sums
	overall  percentiles
	services map[string]*sums
	routes   []routeSums // the slowest first

	// What there is to choose from.
	serviceNames, routeNames, gatewayNames []string
}

// sums are added up over a span.
type sums struct {
	requests, errors uint64
	seconds          float64
	bytes            bandwidth.Bytes
	lastUsed         time.Time // not before this, and within the length of a window
}

func (s *sums) addRequests(p *bandwidth.RequestPoint) {
	s.requests += p.Requests
	s.errors += p.Errors
	s.seconds += p.Seconds
	if p.Requests > 0 && p.Start.After(s.lastUsed) {
		s.lastUsed = p.Start
	}
}

// errorShare and average are null if there were no requests.
func (s *sums) errorShare() float64 { return ratio(float64(s.errors), float64(s.requests)) }
func (s *sums) average() float64    { return ratio(s.seconds, float64(s.requests)) }

func ratio(a, b float64) float64 {
	if b == 0 {
		return null
	}
	return a / b
}

type routeSums struct {
	service, route string
	sums
	percentiles
}

// percentiles of durations in seconds, null if there are none.
type percentiles struct{ p50, p95, p99 float64 }

func percentilesOf(sketches ...[]byte) percentiles {
	none := percentiles{null, null, null}
	sketches = slices.DeleteFunc(sketches, func(b []byte) bool { return len(b) == 0 })
	if len(sketches) == 0 {
		return none
	}
	sketch, err := sketches[0], error(nil)
	if len(sketches) > 1 {
		sketch, err = stats.MergeSketches(sketches...)
	}
	if err != nil {
		return none // written by a version that is not known here
	}
	q, err := stats.Quantiles(sketch, 0.5, 0.95, 0.99)
	if err != nil || len(q) != 3 {
		return none
	}
	return percentiles{q[0], q[1], q[2]}
}

const (
	layers      = 6 // of a stacked picture, beside that of all others
	slowestSeen = 10
)

// nothing are the figures of a span that nothing is known of.
func nothing(s span) figures {
	return figures{
		span: s, services: make(map[string]*sums), requests: s.nulls(), errors: s.nulls(),
		p50: s.nulls(), p95: s.nulls(), p99: s.nulls(), overall: percentilesOf(),
	}
}

// collect reads all that the page shows of the account.
func collect(ctx context.Context, from account, a ask, s span) (f figures, err error) {
	f = nothing(s)
	q := bandwidth.Query{Filter: a.filter(), From: s.from, To: s.end(), Step: s.step}
	if err := f.collectRequests(ctx, from, q); err != nil {
		return f, err
	}
	if err := f.collectRoutes(ctx, from, q); err != nil {
		return f, err
	}
	if err := f.collectUsage(ctx, from, q, a); err != nil {
		return f, err
	}
	f.serviceNames, f.routeNames, _, f.gatewayNames, err = from.Names(ctx, s.from)
	return f, err
}

// collectRequests reads how all requests went.
func (f *figures) collectRequests(ctx context.Context, from account, q bandwidth.Query) error {
	points, err := from.Requests(ctx, q)
	if err != nil {
		return err
	}
	sketches := make([][]byte, 0, len(points))
	for _, p := range points {
		i := f.index(p.Start)
		if i < 0 {
			continue
		}
		f.total.addRequests(&p)
		f.requests[i], f.errors[i] = float64(p.Requests), float64(p.Errors)
		at := percentilesOf(p.Sketch)
		f.p50[i], f.p95[i], f.p99[i] = at.p50, at.p95, at.p99
		sketches = append(sketches, p.Sketch)
	}
	f.overall = percentilesOf(sketches...)
	return nil
}

// collectRoutes reads how the requests of each route went, and how long those of the
// slowest took.
func (f *figures) collectRoutes(ctx context.Context, from account, q bandwidth.Query) error {
	q.GroupBy, q.NoSketches = []bandwidth.Dimension{bandwidth.ByService, bandwidth.ByRoute}, true
	points, err := from.Requests(ctx, q)
	if err != nil {
		return err
	}
	type key struct{ service, route string }
	byRoute := make(map[key]*routeSums)
	for _, p := range points {
		k := key{p.Service, p.Route}
		if byRoute[k] == nil {
			byRoute[k] = &routeSums{service: p.Service, route: p.Route}
		}
		byRoute[k].addRequests(&p)
		f.service(p.Service).addRequests(&p)
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
	if len(f.routes) == 0 {
		return nil
	}
	q.NoSketches, q.Routes = false, nil
	for _, one := range f.routes {
		if !slices.Contains(q.Routes, one.route) {
			q.Routes = append(q.Routes, one.route)
		}
	}
	points, err = from.Requests(ctx, q)
	if err != nil {
		return err
	}
	sketches := make(map[key][][]byte)
	for _, p := range points {
		k := key{p.Service, p.Route}
		sketches[k] = append(sketches[k], p.Sketch)
	}
	for i := range f.routes {
		one := &f.routes[i]
		one.percentiles = percentilesOf(sketches[key{one.service, one.route}]...)
	}
	return nil
}

func (f *figures) service(name string) *sums {
	if f.services[name] == nil {
		f.services[name] = new(sums)
	}
	return f.services[name]
}

// collectUsage reads how many bytes went where: by service, or by route of the one
// that is asked for.
func (f *figures) collectUsage(ctx context.Context, from account, q bandwidth.Query, a ask) error {
	q.GroupBy = []bandwidth.Dimension{bandwidth.ByService}
	name := func(p *bandwidth.Point) string { return p.Service }
	if a.service != "" {
		q.GroupBy = append(q.GroupBy, bandwidth.ByRoute)
		name = func(p *bandwidth.Point) string { return p.Route }
	}
	points, err := from.Usage(ctx, q)
	if err != nil {
		return err
	}
	totals := make(map[string]bandwidth.Bytes)
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
	return nil
}

// layer is where in a stack a name belongs.
type layer struct {
	index int
	name  string
}

// placesOf gives those with the largest share of either direction a layer each, by
// name, so that they keep their colours while others grow, and one to all others.
func placesOf(totals map[string]bandwidth.Bytes, all bandwidth.Bytes) map[string]layer {
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

// layersOf makes an empty series for each layer.
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

// classes are those of the colours in the style sheet; the last is grey.
var classes = [layers + 1]string{"c1", "c2", "c3", "c4", "c5", "c6", "c0"}

// unnamed is what the page calls a service or a route whose name is empty: requests
// that went to none.
const unnamed = "(none)"

// add adds to a layer in a window, in which all other layers are known as well then.
func (f *figures) add(all []series, index, at int, v float64) {
	for i := range all {
		if isNull(all[i].values[at]) {
			all[i].values[at] = 0
		}
	}
	all[index].values[at] += v
}
