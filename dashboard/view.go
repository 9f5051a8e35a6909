package dashboard

import (
	"cmp"
	"fmt"
	"html/template"
	"slices"
	"strconv"
	"strings"
)

// page holds the data of the template.
type page struct {
	Style  template.CSS
	Script template.JS

	Gateway string
	Path    string
	Now     string
	Zone    string
	Refresh int // in seconds; 0: never
	Still   link

	Reaches []link
	Choices []choice
	Kept    []kept // parameters that forms preserve

	State    badge
	Problem  string // the reason there is no recorded usage
	Tiles    []tile
	Pictures []picture // pictures of requests
	Traffic  []picture
	Quotas   []quotaView
	Backends []backendView
	Slowest  []routeView
	Errors   []errorView
	HasLog   bool
	Health   []healthView
	Reach    string // the description of the time range
}

type link struct {
	Text, Href string
	Current    bool
}

// choice is a select element of the page.
type choice struct {
	Name, Label, All string
	Options          []option
}

type option struct {
	Value, Text string
	Chosen      bool
}

type kept struct{ Name, Value string }

// badge is the label of a state. Its CSS class selects the shape and color.
type badge struct{ Class, Text string }

// badges maps states of gateways and backends to badges.
var badges = map[string]badge{
	"healthy":   {"good", "healthy"},
	"degraded":  {"warn", "degraded"},
	"unhealthy": {"bad", "unhealthy"},
}

// tile is a key figure at the top of the page.
type tile struct{ Label, Value, Note string }

type quotaView struct {
	Name, Of, Used, Allocated, Share, Outlook, Alt string

	State            badge
	Bar, ForecastBar float64   // 0 to 1
	Marks            []float64 // the positions of the thresholds, 0 to 1
	Failures         []string  // failed notifications
}

type backendView struct {
	ID, Name, Detail                                         string
	State                                                    badge
	InFlight, Requests, Errors, Average, Sent, Got, LastUsed string
	Failing                                                  bool // whether more than 1% of requests failed
	Instances                                                []instanceView
	Open                                                     bool
}

type instanceView struct {
	Name, Address, InFlight, Reason string
	State                           badge
}

type routeView struct {
	Route, Service, Requests, Errors, Average, P95, P99 string
	Href                                                string
	Bar                                                 float64 // 0 to 1
}

type errorView struct {
	Ago, Time, Status, Method, URL, Where, Took, Cause string
	Class                                              string
}

type healthView struct {
	Name, Cause string
	State       badge
}

// present returns the data of the page.
func present(params pageParams, f figures, l live, problem string) page {
	s := f.span
	zone, _ := s.now.In(s.in).Zone()
	p := page{
		Now: s.now.In(s.in).Format("15:04:05"), Zone: zone, Problem: problem, Reach: params.text,
		Tiles: tiles(f, l), Pictures: requestPictures(f), Traffic: trafficPictures(f, params),
		Slowest: slowest(f, params), Health: healthOf(l, problem), State: stateOf(l, problem),
	}
	for _, r := range timeRanges {
		other := params
		other.timeRange = r
		p.Reaches = append(p.Reaches, link{r.text, other.query(), r.name == params.name})
	}
	other := params
	other.still = !params.still
	p.Still = link{Text: map[bool]string{false: "Pause", true: "Resume"}[params.still], Href: other.query()}
	p.Kept = append(p.Kept, kept{"range", params.name})
	if params.still {
		p.Kept = append(p.Kept, kept{"refresh", "off"})
	}
	p.Choices = append(p.Choices, choose("service", "Service", "All services", f.serviceNames, params.service), choose("route", "Route", "All routes", f.routeNames, params.route))
	if len(f.gatewayNames) > 1 || params.gateway != "" {
		p.Choices = append(p.Choices, choose("gateway", "Gateway", "All gateways", f.gatewayNames, params.gateway))
	}
	for _, q := range l.quotas {
		p.Quotas = append(p.Quotas, s.quota(q))
	}
	p.Backends = s.backends(f, l)
	for _, e := range l.errors[:min(len(l.errors), 12)] {
		p.Errors = append(p.Errors, errorView{
			Ago: ago(s.now.Sub(e.Time)), Time: e.Time.In(s.in).Format("2 Jan 15:04:05"), Status: strconv.Itoa(e.Status), Method: e.Method, URL: e.URL,
			Where: where(e.Service, e.Route, e.Container), Took: durations.text(e.Took.Seconds()), Cause: e.Error,
			Class: map[bool]string{false: "warn", true: "bad"}[e.Status >= 500],
		})
	}
	return p
}

// choose returns a list of names. It includes the selected name even if it is unknown.
func choose(name, label, all string, names []string, chosen string) choice {
	c := choice{Name: name, Label: label, All: all}
	names = slices.DeleteFunc(slices.Clone(names), func(n string) bool { return n == "" })
	if chosen != "" && !slices.Contains(names, chosen) {
		names = append(names, chosen)
	}
	for _, n := range slices.Sorted(slices.Values(names)) {
		c.Options = append(c.Options, option{n, n, n == chosen})
	}
	return c
}

func where(service, route, container string) string {
	parts := slices.DeleteFunc([]string{route, service, container}, func(s string) bool { return s == "" })
	return strings.Join(slices.Compact(parts), " → ")
}

// lately returns the total rate of the rows in the last window with enough elapsed
// time.
func (s span) lately(rows ...[]float64) float64 {
	for i := s.n - 1; i >= 0; i-- {
		if !s.judged(i) {
			continue
		}
		sum := 0.0
		for _, row := range rows {
			if !isNull(row[i]) {
				sum += row[i]
			}
		}
		return sum / s.seconds(i)
	}
	return null
}

func valuesOf(all []series) (rows [][]float64) {
	for _, one := range all {
		rows = append(rows, one.values)
	}
	return rows
}

func tiles(f figures, l live) []tile {
	running, inFlight, healthy := 0, int64(0), 0
	for _, b := range l.backends {
		inFlight += b.InFlight
		running += b.Total
		healthy += b.Healthy
	}
	now := func(q quantity, rows ...[]float64) string { return q.text(f.lately(rows...)) + " lately" }
	errors := requestCounts.text(float64(f.total.errors)) + " failed"
	return []tile{
		{"Requests", requestCounts.text(float64(f.total.requests)), now(rates, f.requests)},
		{"Errors", shares.text(f.total.errorShare()), errors},
		{"95 % within", durations.text(f.overall.p95), "half within " + durations.text(f.overall.p50)},
		{"Sent to clients", byteCounts.text(float64(f.total.bytes.Egress)), now(byteRates, valuesOf(f.egress)...)},
		{"Received", byteCounts.text(float64(f.total.bytes.Ingress)), now(byteRates, valuesOf(f.ingress)...)},
		{"In flight now", requestCounts.text(float64(inFlight)), fmt.Sprintf("%d of %d instances healthy", healthy, running)},
	}
}

func slowest(f figures, params pageParams) (views []routeView) {
	highest := 0.0
	for _, one := range f.routes {
		if !isNull(one.p95) {
			highest = max(highest, one.p95)
		}
	}
	for _, one := range f.routes {
		other := params
		other.route, other.service = one.route, one.service
		v := routeView{
			Route: cmp.Or(one.route, unnamed), Service: cmp.Or(one.service, unnamed), Requests: requestCounts.text(float64(one.requests)),
			Errors: shares.text(one.errorShare()), Average: durations.text(one.average()), P95: durations.text(one.p95), P99: durations.text(one.p99),
			Href: other.query(),
		}
		if highest > 0 && !isNull(one.p95) {
			v.Bar = one.p95 / highest
		}
		views = append(views, v)
	}
	return views
}

func healthOf(l live, problem string) (views []healthView) {
	if problem != "" {
		views = append(views, healthView{Name: "bandwidth usage", State: badge{"bad", "down"}, Cause: problem})
	}
	for _, d := range l.dependencies {
		v := healthView{Name: d.Name, State: badge{"good", "up"}, Cause: d.Error}
		if !d.Up {
			v.State = badge{"bad", "down"}
		}
		views = append(views, v)
	}
	return views
}

// stateOf returns the overall state of the gateway.
func stateOf(l live, problem string) badge {
	down, worst := 0, "healthy"
	for _, b := range l.backends {
		if b.Status != "healthy" {
			worst = "degraded"
		}
		if b.Status == "unhealthy" {
			down++
		}
	}
	for _, d := range l.dependencies {
		if !d.Up {
			worst = "degraded"
		}
	}
	if problem != "" {
		worst = "degraded"
	}
	if down > 0 && down == len(l.backends) {
		worst = "unhealthy"
	}
	return badges[worst]
}
