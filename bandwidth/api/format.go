package api

import (
	"bytes"
	"cmp"
	"encoding/csv"
	"encoding/json"
	"slices"
	"strconv"
	"strings"

	"github.com/rgate/rgate/bandwidth/store"
)

// group is one series of a response: its names, and the bytes of each window. Windows
// without a row are nil.
type group struct {
	gateway string
	store.Key
	windows []*store.Bytes
}

func (g *group) compare(o *group) int {
	return cmp.Or(
		strings.Compare(g.Service, o.Service), strings.Compare(g.Route, o.Route),
		strings.Compare(g.Consumer, o.Consumer), strings.Compare(g.gateway, o.gateway),
	)
}

// query returns the query for the usage store.
func (q *usageParams) query() store.Query {
	return store.Query{Filter: q.Filter, From: q.from, To: q.to, Step: q.step, GroupBy: q.groupBy}
}

// groupsBy reports whether points are grouped by a dimension.
func (q *usageParams) groupsBy(by store.Dimension) bool { return slices.Contains(q.groupBy, by) }

// arrange sorts points into groups of n windows, ordered by name. at returns the window
// index of a point, or -1 to skip the point. Groups that the query names are included
// even if they have no points.
func (q *usageParams) arrange(points []store.Point, n int, at func(*store.Point) int) []*group {
	type name struct {
		gateway string
		store.Key
	}
	groups := make(map[name]*group)
	of := func(gateway string, key store.Key) *group {
		id := name{gateway, key}
		if groups[id] == nil {
			groups[id] = &group{gateway, key, make([]*store.Bytes, n)}
		}
		return groups[id]
	}
	for _, known := range q.named() {
		of(known.gateway, known.Key)
	}
	for i := range points {
		p := &points[i]
		window := at(p)
		if window < 0 {
			continue
		}
		g := of(p.Gateway, p.Key)
		if g.windows[window] == nil {
			g.windows[window] = new(store.Bytes)
		}
		g.windows[window].Add(p.Bytes)
	}
	all := make([]*group, 0, len(groups))
	for _, g := range groups {
		all = append(all, g)
	}
	slices.SortFunc(all, (*group).compare)
	return all
}

// named returns the groups that the query names, at most maxNames. It returns nil if there
// are more, or unless the query names values for every grouped dimension.
func (q *usageParams) named() []group {
	all := []group{{}}
	for _, by := range q.groupBy {
		names := q.names(by)
		if len(names) == 0 || len(all)*len(names) > maxNames {
			return nil
		}
		next := make([]group, 0, len(all)*len(names))
		for _, g := range all {
			for _, name := range names {
				*g.field(by) = name
				next = append(next, g)
			}
		}
		all = next
	}
	return all
}

func (q *usageParams) names(by store.Dimension) []string {
	switch by {
	case store.ByService:
		return q.Services
	case store.ByRoute:
		return q.Routes
	case store.ByConsumer:
		return q.Consumers
	default:
		return q.Gateways
	}
}

func (g *group) field(by store.Dimension) *string {
	switch by {
	case store.ByService:
		return &g.Service
	case store.ByRoute:
		return &g.Route
	case store.ByConsumer:
		return &g.Consumer
	default:
		return &g.gateway
	}
}

// label returns the value of a point's field: the group's name, or the only name in the
// filter. ok is false if there is neither.
func (q *usageParams) label(g *group, by store.Dimension) (value string, ok bool) {
	if q.groupsBy(by) {
		return *g.field(by), true
	}
	if names := q.names(by); len(names) == 1 {
		return names[0], true
	}
	return "", false
}

// fields returns the dimensions that points have fields for. Service and route are always
// included.
func (q *usageParams) fields() (all []store.Dimension) {
	for _, by := range dimensions {
		if by == store.ByService || by == store.ByRoute || q.groupsBy(by) || len(q.names(by)) > 0 {
			all = append(all, by)
		}
	}
	return all
}

// used returns the body bytes and the estimated header bytes of a direction, or nil for a
// window without a row.
func used(b *store.Bytes, d store.Direction) (bodies, headers *int64) {
	switch {
	case b == nil:
		return nil, nil
	case d == store.Ingress:
		return &b.Ingress, &b.IngressHeaders
	default:
		return &b.Egress, &b.EgressHeaders
	}
}

// row is a formatted point. Missing values are null in JSON and empty in CSV.
type row struct {
	time   string
	labels []label
	values []label
}

type label struct {
	name, text string
	inJSON     string
}

// textLabel returns a string label. The label is null if ok is false.
func textLabel(name, text string, ok bool) label {
	if !ok {
		return label{name: name, inJSON: "null"}
	}
	quoted, _ := json.Marshal(text) // marshaling a string cannot fail
	return label{name, text, string(quoted)}
}

// numberLabel returns a number label, or null if n is nil.
func numberLabel(name string, n *int64) label {
	if n == nil {
		return label{name: name, inJSON: "null"}
	}
	text := strconv.FormatInt(*n, 10)
	return label{name, text, text}
}

// rows calls f for each point, in ascending order of time, then names, then direction.
// The row is only valid during the call.
func (q *usageParams) rows(groups []*group, stamp func(window int) string, f func(*row)) {
	if len(groups) == 0 {
		return
	}
	fields := q.fields()
	labels := make([][]label, len(groups))
	for i, g := range groups {
		for _, by := range fields {
			text, ok := q.label(g, by)
			labels[i] = append(labels[i], textLabel(string(by), text, ok))
		}
	}
	var types []label
	for _, d := range q.types {
		types = append(types, textLabel("type", string(d), true))
	}
	var r row
	for window := range groups[0].windows {
		r.time = stamp(window)
		for i, g := range groups {
			for j, d := range q.types {
				r.labels = append(append(r.labels[:0], types[j]), labels[i]...)
				bodies, headers := used(g.windows[window], d)
				r.values = append(r.values[:0], numberLabel("bandwidth_used", bodies))
				if q.headers {
					r.values = append(r.values, numberLabel("header_bytes", headers))
				}
				f(&r)
			}
		}
	}
}

// writeJSON writes rows as an array of objects. Rows without a time have no time field.
func (q *usageParams) writeJSON(body *bytes.Buffer, groups []*group, stamp func(int) string) {
	body.WriteByte('[')
	q.rows(groups, stamp, func(r *row) {
		if body.Bytes()[body.Len()-1] == '}' {
			body.WriteByte(',')
		}
		body.WriteByte('{')
		if r.time != "" {
			body.WriteString(`"time":"` + r.time + `",`)
		}
		writeFields(body, r.labels)
		body.WriteByte(',')
		writeFields(body, r.values)
		body.WriteByte('}')
	})
	body.WriteByte(']')
}

func writeFields(body *bytes.Buffer, labels []label) {
	for i, l := range labels {
		if i > 0 {
			body.WriteByte(',')
		}
		body.WriteByte('"')
		body.WriteString(l.name)
		body.WriteString(`":`)
		body.WriteString(l.inJSON)
	}
}

// writeCSV writes rows as CSV (RFC 4180) with a header line.
func (q *usageParams) writeCSV(body *bytes.Buffer, groups []*group, stamp func(int) string, timed bool) {
	w := csv.NewWriter(body)
	w.UseCRLF = true
	var line []string
	if timed {
		line = append(line, "time")
	}
	line = append(line, "type")
	for _, by := range q.fields() {
		line = append(line, string(by))
	}
	line = append(line, "bandwidth_used")
	if q.headers {
		line = append(line, "header_bytes")
	}
	_ = w.Write(line) // cannot fail: w writes to memory
	q.rows(groups, stamp, func(r *row) {
		line = line[:0]
		if timed {
			line = append(line, r.time)
		}
		for _, l := range r.labels {
			line = append(line, l.text)
		}
		for _, v := range r.values {
			line = append(line, v.text)
		}
		_ = w.Write(line)
	})
	w.Flush()
}
