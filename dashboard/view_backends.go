package dashboard

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// backends returns the gateway's backends, and other services with recorded usage.
func (s span) backends(f figures, l live) (views []backendView) {
	logged := l.lastUsed()
	known := make(map[string]bool)
	for i, b := range l.backends {
		known[b.Name] = true
		v := backendView{ID: "backend-" + strconv.Itoa(i), Name: b.Name, State: badges[b.Status], InFlight: requestCounts.text(float64(b.InFlight))}
		v.Detail = fmt.Sprintf("%d of %d healthy", b.Healthy, b.Total)
		for _, breaker := range b.Breakers {
			if breaker.State != "" && breaker.State != "closed" {
				v.Detail += ", circuit " + strings.ReplaceAll(breaker.State, "_", " ")
			}
		}
		for _, limit := range b.Limits {
			if limit.Queued > 0 {
				v.Detail += fmt.Sprintf(", %d queued", limit.Queued)
			}
		}
		for _, one := range b.Instances {
			iv := instanceView{Name: cmp.Or(one.Container, one.Address), Address: one.Address, Reason: one.Reason, State: badges[one.Status]}
			if one.Container == "" {
				iv.Address = ""
			}
			if one.InFlight != nil {
				iv.InFlight = strconv.Itoa(*one.InFlight) + " in flight"
			}
			v.Instances = append(v.Instances, iv)
			v.Open = v.Open || one.Reason != ""
		}
		for _, other := range b.Excluded {
			v.Instances = append(v.Instances, instanceView{Name: other.Container, Reason: other.Reason, State: badge{"none", "not selected"}})
		}
		s.addFigures(&v, f.services[b.Name], logged[b.Name])
		views = append(views, v)
	}
	var others []string
	for name := range f.services {
		if !known[name] {
			others = append(others, name)
		}
	}
	slices.Sort(others)
	for _, name := range others {
		v := backendView{Name: cmp.Or(name, unnamed), State: badge{"none", "not here"}, InFlight: "–", Detail: "known by its traffic"}
		if name == "" {
			v.Detail = "requests without a backend"
		}
		s.addFigures(&v, f.services[name], logged[name])
		views = append(views, v)
	}
	return views
}

// addFigures adds a service's recorded usage and the time of its last response to the
// view.
func (s span) addFigures(v *backendView, of *sums, logged time.Time) {
	if of == nil {
		of = new(sums)
	}
	v.Requests, v.Average = requestCounts.text(float64(of.requests)), durations.text(of.average())
	v.Errors, v.Failing = shares.text(of.errorShare()), of.errorShare() > 0.01
	v.Sent, v.Got = byteCounts.text(float64(of.bytes.Egress)), byteCounts.text(float64(of.bytes.Ingress))
	switch {
	case !logged.IsZero():
		v.LastUsed = ago(s.now.Sub(logged))
	case !of.lastUsed.IsZero():
		v.LastUsed = ago(max(s.now.Sub(of.lastUsed.Add(s.step)), 0))
	default:
		v.LastUsed = "not in this time"
	}
}
