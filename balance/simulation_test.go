package balance

import (
	"container/heap"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"
)

// simulation simulates clients that send requests one after another, with a fake clock.
type simulation struct {
	t        *testing.T
	table    *table
	pool     reverseproxy.UpstreamPool
	servers  map[*reverseproxy.Upstream]*server
	now      time.Duration
	underway finishes
}

// server is a simulated upstream. It responds or fails after latency, plus or minus one
// fifth.
type server struct {
	latency          time.Duration
	fails            bool
	inFlight, served int
	firstAt          time.Duration // time of its first request
	most             int           // maximum number of requests in flight before its first response
	responded        bool
}

func simulate(t *testing.T, clients int, servers ...*server) *simulation {
	s := &simulation{t: t, table: new(table), servers: make(map[*reverseproxy.Upstream]*server), now: at}
	for _, server := range servers {
		s.add(server)
	}
	for range clients {
		s.send()
	}
	return s
}

func (s *simulation) add(server *server) {
	u := upstreams(len(s.pool) + 1)[len(s.pool)]
	s.pool = append(s.pool, u)
	s.servers[u] = server
}

func (s *simulation) send() {
	u := s.table.choose(s.pool, s.now)
	server := s.servers[u]
	if server.served == 0 && server.inFlight == 0 {
		server.firstAt = s.now
	}
	server.inFlight++
	if !server.responded {
		server.most = max(server.most, server.inFlight)
	}
	occupy(s.t, u, server.inFlight)
	s.table.of(u.Dial, s.now).waiting.Add(1)
	took := time.Duration(float64(server.latency) * (0.8 + 0.4*rand.Float64()))
	heap.Push(&s.underway, finish{s.now + took, took, u})
}

// run runs the clients for the given simulated time.
func (s *simulation) run(long time.Duration) {
	end := s.now + long
	for s.underway[0].at <= end {
		f := heap.Pop(&s.underway).(finish)
		s.now = f.at
		server := s.servers[f.upstream]
		server.inFlight--
		server.served++
		server.responded = true
		occupy(s.t, f.upstream, server.inFlight)
		h := s.table.of(f.upstream.Dial, s.now)
		h.waiting.Add(-1)
		if server.fails {
			h.broke(s.now)
		} else {
			h.responded(s.now, f.took)
		}
		s.send()
	}
	s.now = end
}

// share returns a server's fraction of all requests.
func (s *simulation) share(of *server) float64 {
	all := 0
	for _, server := range s.servers {
		all += server.served
	}
	return float64(of.served) / float64(all)
}

type finish struct {
	at, took time.Duration
	upstream *reverseproxy.Upstream
}

type finishes []finish

func (f finishes) Len() int           { return len(f) }
func (f finishes) Less(i, j int) bool { return f[i].at < f[j].at }
func (f finishes) Swap(i, j int)      { f[i], f[j] = f[j], f[i] }
func (f *finishes) Push(x any)        { *f = append(*f, x.(finish)) }
func (f *finishes) Pop() any {
	old := *f
	last := old[len(old)-1]
	*f = old[:len(old)-1]
	return last
}

func TestASlowUpstreamGetsLittle(t *testing.T) {
	for clients, long := range map[int]time.Duration{1: time.Minute, 3: time.Minute, 10: 10 * time.Second, 100: 2 * time.Second, 300: 2 * time.Second} {
		slow := &server{latency: 50 * ms}
		s := simulate(t, clients, &server{latency: 10 * ms}, &server{latency: 10 * ms}, slow)
		s.run(long)
		if share := s.share(slow); share > 0.10 || share == 0 {
			t.Errorf("%d clients: the slow one of three has %.1f %% of the requests", clients, share*100)
		}
	}
}

func TestEqualUpstreamsGetEqualShares(t *testing.T) {
	for clients, long := range map[int]time.Duration{1: time.Minute, 10: 10 * time.Second, 100: time.Second} {
		servers := []*server{{latency: 10 * ms}, {latency: 10 * ms}, {latency: 10 * ms}, {latency: 10 * ms}}
		s := simulate(t, clients, servers...)
		s.run(long)
		for i, server := range servers {
			if share := s.share(server); share < 0.2 || share > 0.3 {
				t.Errorf("%d clients: upstream %d has %.1f %% of the requests", clients, i, share*100)
			}
		}
	}
}

func TestASlowUpstreamThatRecoversIsFoundOut(t *testing.T) {
	slow := &server{latency: 500 * ms}
	s := simulate(t, 10, &server{latency: 10 * ms}, &server{latency: 10 * ms}, slow)
	s.run(20 * time.Second)
	slow.latency = 10 * ms
	s.run(forgetAfter + time.Second)
	for _, server := range s.servers {
		server.served = 0
	}
	s.run(10 * time.Second)
	if share := s.share(slow); share < 0.2 {
		t.Errorf("it has %.1f %% of the requests", share*100)
	}
}

func TestANewUpstreamIsTriedSoonAndNotFlooded(t *testing.T) {
	s := simulate(t, 40, &server{latency: 10 * ms}, &server{latency: 10 * ms}, &server{latency: 10 * ms})
	s.run(5 * time.Second)
	added, fresh := s.now, &server{latency: 300 * ms}
	s.add(fresh)
	s.run(time.Second)
	if after := fresh.firstAt - added; fresh.served == 0 || after > 20*ms {
		t.Errorf("it got its first request after %s", after)
	}
	if fresh.most > 20 { // the other servers have 10 to 13 each
		t.Errorf("it had %d requests before its first response", fresh.most)
	}
}

// TestAFailingUpstreamAttractsNothing checks an upstream that fails immediately, and
// therefore is always idle and seems fast.
func TestAFailingUpstreamAttractsNothing(t *testing.T) {
	for _, clients := range []int{1, 10, 40} {
		failing := &server{latency: ms / 10, fails: true}
		s := simulate(t, clients, failing, &server{latency: 50 * ms}, &server{latency: 50 * ms})
		s.run(60 * time.Second)
		// It gets its share at the start, then probes after 1 s, 2 s, 4 s and 8 s, and
		// every 10 s.
		if failing.served > 12+clients/2 {
			t.Errorf("%d clients: it failed %d requests in a minute", clients, failing.served)
		}
		failing.fails, failing.latency = false, 50*ms
		s.run(longestRest + time.Second)
		for _, server := range s.servers {
			server.served = 0
		}
		s.run(10 * time.Second)
		if share := s.share(failing); share < 0.2 {
			t.Errorf("%d clients: after its recovery it has %.1f %% of the requests", clients, share*100)
		}
	}
}

// TestWhenAllFailAllAreTried checks that if all upstreams fail, requests are spread over
// all.
func TestWhenAllFailAllAreTried(t *testing.T) {
	servers := []*server{{latency: 5 * ms, fails: true}, {latency: 5 * ms, fails: true}, {latency: 5 * ms, fails: true}}
	s := simulate(t, 10, servers...)
	s.run(10 * time.Second)
	for i, server := range servers {
		if share := s.share(server); share < 0.2 {
			t.Errorf("upstream %d has %.1f %% of the requests", i, share*100)
		}
	}
}
