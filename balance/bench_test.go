package balance

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"

	"github.com/rgate/rgate/internal/monotime"
	"github.com/rgate/rgate/internal/testkit"
)

var sizes = []int{3, 10, 50, 500}

// requests returns requests with different keys in a header field and the client address.
func requests(b *testing.B) []*http.Request {
	all := make([]*http.Request, 256)
	for i := range all {
		all[i] = user(b, i)
		caddyhttp.SetVar(all[i].Context(), caddyhttp.ClientIPVarKey, fmt.Sprintf("192.0.2.%d", i))
	}
	return all
}

// BenchmarkSelect measures the selection among n busy upstreams by the policies of rgate
// and Caddy.
func BenchmarkSelect(b *testing.B) {
	latency := testkit.Provision(b, new(LeastLatency))
	for _, u := range upstreams(500) {
		latency.table.of(u.Dial, monotime.Now()).responded(monotime.Now()+time.Hour, time.Duration(1+rand.IntN(5))*ms)
	}
	header := testkit.Provision(b, &reverseproxy.HeaderHashSelection{Field: "X-User"})
	for _, policy := range []struct {
		name string
		make func() reverseproxy.Selector
	}{
		{"ring_hash", func() reverseproxy.Selector { return testkit.Provision(b, new(RingHash)) }},
		{"ring_hash_by_header", func() reverseproxy.Selector { return testkit.Provision(b, &RingHash{Key: byUser}) }},
		{"ring_hash_bounded", func() reverseproxy.Selector { return testkit.Provision(b, &RingHash{LoadFactor: 1.25}) }},
		{"caddy_client_ip_hash", func() reverseproxy.Selector { return reverseproxy.ClientIPHashSelection{} }},
		{"caddy_header", func() reverseproxy.Selector { return *header }},
		{"least_latency", func() reverseproxy.Selector { return latency }},
		{"caddy_least_conn", func() reverseproxy.Selector { return reverseproxy.LeastConnSelection{} }},
		{"caddy_random_choose", func() reverseproxy.Selector { return reverseproxy.RandomChoiceSelection{Choose: 2} }},
		{"caddy_round_robin", func() reverseproxy.Selector { return new(reverseproxy.RoundRobinSelection) }},
	} {
		for _, n := range sizes {
			b.Run(fmt.Sprintf("%s/%d", policy.name, n), func(b *testing.B) {
				selector, pool, all := policy.make(), upstreams(n), requests(b)
				for _, u := range pool {
					occupy(b, u, 1+rand.IntN(3))
				}
				if ring, ok := selector.(*RingHash); ok {
					ring.proxy = &reverseproxy.Handler{Upstreams: pool}
				}
				selector.Select(pool, all[0], nil)
				b.ReportAllocs()
				i := 0
				for b.Loop() {
					if selector.Select(pool, all[i&255], nil) == nil {
						b.Fatal("nothing was selected")
					}
					i++
				}
			})
		}
	}
}

// BenchmarkFind measures a lookup on the ring.
func BenchmarkFind(b *testing.B) {
	for _, n := range sizes {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			r := NewRing(membersNamed(n, namings["compose"]), 150)
			all := keys()
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				if r.Find(all[i%manyKeys]) < 0 {
					b.Fatal("no upstream was found")
				}
				i++
			}
		})
	}
}

// BenchmarkNewRing measures the first request after a change of the upstreams.
func BenchmarkNewRing(b *testing.B) {
	for _, n := range sizes {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			members := membersNamed(n, namings["compose"])
			b.ReportAllocs()
			for b.Loop() {
				NewRing(members, 150)
			}
		})
	}
}

// BenchmarkLearn measures the overhead per round trip.
func BenchmarkLearn(b *testing.B) {
	t := new(table)
	b.ReportAllocs()
	for b.Loop() {
		begun := monotime.Now()
		h := t.of("10.0.0.1:8080", begun)
		h.waiting.Add(1)
		ended := monotime.Now()
		h.responded(ended, ended-begun)
		h.waiting.Add(-1)
	}
}
