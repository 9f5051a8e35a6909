package bandwidth

import (
	"maps"
	"math"
	"os"
	"runtime/debug"
	rtmetrics "runtime/metrics"
	"slices"
	"strconv"
	"sync"

	"github.com/caddyserver/caddy/v2"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/rgate/rgate/bandwidth/store"
	"github.com/rgate/rgate/internal/metrics"
	"github.com/rgate/rgate/internal/status"
	"github.com/rgate/rgate/stats"
)

// kongCollector exports gateway metrics under the names of Kong's Prometheus plugin, so
// that existing dashboards work. It omits metrics without an equivalent.
type kongCollector struct {
	mu       sync.Mutex
	gateways []kongGateway // Guarded by mu.
}

// kongGateway is a gateway whose metrics are exported.
type kongGateway struct {
	name      string
	node      func() string
	reachable func() bool // reports whether the usage store is available
	recorder  *stats.Recorder
}

// kongWorkspace is the value of the workspace label. rgate has no workspaces.
const kongWorkspace = "default"

// kongBuckets are the bucket bounds of Kong's histograms in milliseconds.
var kongBuckets = []float64{25, 50, 80, 100, 250, 400, 700, 1000, 2000, 5000, 10000, 30000, 60000}

var (
	kongBandwidth = prometheus.NewDesc("kong_bandwidth_bytes",
		"Total bytes of request and response bodies, by direction.", []string{"service", "route", "direction", "workspace", "consumer"}, nil)
	kongRequests = prometheus.NewDesc("kong_http_requests_total",
		"Total requests, by status code.", []string{"service", "route", "code", "source", "workspace", "consumer"}, nil)
	kongLatency = prometheus.NewDesc("kong_request_latency_ms",
		"Duration of requests in milliseconds.", []string{"service", "route", "workspace"}, nil)
	kongTargets = prometheus.NewDesc("kong_upstream_target_health",
		"Whether an upstream is in the given health state.", []string{"upstream", "target", "address", "state", "subsystem"}, nil)
	kongConnections = prometheus.NewDesc("kong_nginx_connections_total",
		"Number of requests, by state. Counts requests instead of connections.", []string{"node_id", "subsystem", "state"}, nil)
	kongNginxRequests = prometheus.NewDesc("kong_nginx_requests_total",
		"Total requests.", []string{"node_id", "subsystem"}, nil)
	kongDatastore = prometheus.NewDesc("kong_datastore_reachable",
		"Whether the bandwidth store is reachable.", nil, nil)
	kongWorkerMemory = prometheus.NewDesc("kong_memory_workers_lua_vms_bytes",
		"Bytes of heap objects.", []string{"node_id", "pid", "kong_subsystem"}, nil)
	kongSharedMemory = prometheus.NewDesc("kong_memory_lua_shared_dict_bytes",
		"Bytes of memory used by the process.", []string{"node_id", "shared_dict", "kong_subsystem"}, nil)
	kongSharedTotal = prometheus.NewDesc("kong_memory_lua_shared_dict_total_bytes",
		"Memory limit of the process in bytes.", []string{"node_id", "shared_dict", "kong_subsystem"}, nil)
)

// Describe implements prometheus.Collector.
func (c *kongCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, desc := range []*prometheus.Desc{
		kongBandwidth, kongRequests, kongLatency, kongTargets, kongConnections, kongNginxRequests,
		kongDatastore, kongWorkerMemory, kongSharedMemory, kongSharedTotal,
	} {
		ch <- desc
	}
}

// kongSeries sums the requests of a service and route over all gateways of the process.
// Kong's metrics do not distinguish gateways.
type kongSeries struct {
	traffic  stats.Traffic
	codes    map[int]uint64
	seconds  float64
	sketches [][]byte
}

// Collect implements prometheus.Collector.
func (c *kongCollector) Collect(ch chan<- prometheus.Metric) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.gateways) == 0 {
		return
	}
	all := make(map[store.Key]*kongSeries)
	var requests uint64
	var inFlight int64
	reachable := true
	seen := make(map[string]bool)
	for _, g := range c.gateways {
		if seen[g.name] {
			continue
		}
		seen[g.name] = true
		reachable = reachable && g.reachable()
		for _, s := range g.recorder.Snapshot().Series {
			key := store.Key{Service: s.Backend, Route: s.Route}
			if key.Service == stats.NoBackend {
				key.Service = "" // Kong's label for requests without a service
			}
			one := all[key]
			if one == nil {
				one = &kongSeries{codes: make(map[int]uint64)}
				all[key] = one
			}
			one.add(&s)
			inFlight += s.InFlight
			for _, n := range s.Codes {
				requests += n
			}
		}
	}
	for key, s := range all {
		s.collect(ch, key)
	}
	kongHealth(ch, slices.Collect(maps.Keys(seen)))
	kongProcess(ch, c.gateways[0].node(), reachable, requests, inFlight)
}

func (k *kongSeries) add(s *stats.SeriesSnapshot) {
	k.traffic.IngressBody += s.Traffic.IngressBody
	k.traffic.EgressBody += s.Traffic.EgressBody
	k.seconds += s.LatencySumSeconds
	k.sketches = append(k.sketches, s.Sketch)
	for code, n := range s.Codes {
		k.codes[code] += n
	}
}

func (k *kongSeries) collect(ch chan<- prometheus.Metric, key store.Key) {
	for direction, n := range map[string]uint64{"ingress": k.traffic.IngressBody, "egress": k.traffic.EgressBody} {
		ch <- prometheus.MustNewConstMetric(kongBandwidth, prometheus.CounterValue, float64(n), key.Service, key.Route, direction, kongWorkspace, "")
	}
	source := "service"
	if key.Service == "" {
		source = "kong" // the gateway generated the response
	}
	for code, n := range k.codes {
		ch <- prometheus.MustNewConstMetric(kongRequests, prometheus.CounterValue, float64(n), key.Service, key.Route, strconv.Itoa(code), source, kongWorkspace, "")
	}
	sketch, err := stats.MergeSketches(k.sketches...)
	if err != nil {
		return // cannot happen: the sketches are from memory
	}
	bounds := make([]float64, len(kongBuckets))
	for i, ms := range kongBuckets {
		bounds[i] = ms / 1000
	}
	atMost, n, err := stats.Histogram(sketch, bounds)
	if err != nil {
		return
	}
	buckets := make(map[float64]uint64, len(bounds))
	for i, ms := range kongBuckets {
		buckets[ms] = atMost[bounds[i]]
	}
	ch <- prometheus.MustNewConstHistogram(kongLatency, n, k.seconds*1000, buckets, key.Service, key.Route, kongWorkspace)
}

// kongServices is the part of a gateway's published services that kongHealth reads.
type kongServices struct {
	Services []struct {
		Name      string `json:"name"`
		Instances []struct {
			Address   string `json:"address"`
			Container string `json:"container"`
			Status    string `json:"status"`
		} `json:"instances"`
	} `json:"services"`
}

// kongHealth exports the health of backend instances.
func kongHealth(ch chan<- prometheus.Metric, gateways []string) {
	type target struct{ upstream, name, address string }
	states := make(map[target]string)
	for _, gateway := range gateways {
		for _, published := range status.Decode[kongServices](status.Services.All(gateway)) {
			for _, s := range published.Services {
				for _, one := range s.Instances {
					t := target{s.Name, one.Container, one.Address}
					if t.name == "" {
						t.name = t.address
					}
					states[t] = one.Status
				}
			}
		}
	}
	for t, status := range states {
		for _, state := range []string{"healthchecks_off", "healthy", "unhealthy", "dns_error"} {
			value := 0.0
			if status == state {
				value = 1
			}
			ch <- prometheus.MustNewConstMetric(kongTargets, prometheus.GaugeValue, value, t.upstream, t.name, t.address, state, "http")
		}
	}
}

// kongProcess exports the process metrics.
func kongProcess(ch chan<- prometheus.Metric, node string, reachable bool, requests uint64, inFlight int64) {
	gauge := func(desc *prometheus.Desc, value float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, value, labels...)
	}
	for state, n := range map[string]float64{
		"active": float64(inFlight), "writing": float64(inFlight), "reading": 0, "waiting": 0,
		"accepted": float64(requests), "handled": float64(requests), "total": float64(requests),
	} {
		gauge(kongConnections, n, node, "http", state)
	}
	ch <- prometheus.MustNewConstMetric(kongNginxRequests, prometheus.CounterValue, float64(requests), node, "http")
	up := 0.0
	if reachable {
		up = 1
	}
	gauge(kongDatastore, up)
	samples := []rtmetrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}, {Name: "/memory/classes/total:bytes"}}
	rtmetrics.Read(samples)
	live, used := float64(samples[0].Value.Uint64()), float64(samples[1].Value.Uint64())
	gauge(kongWorkerMemory, live, node, strconv.Itoa(os.Getpid()), "http")
	if limit := debug.SetMemoryLimit(-1); limit < math.MaxInt64 {
		gauge(kongSharedMemory, used, node, "rgate", "http")
		gauge(kongSharedTotal, float64(limit), node, "rgate", "http")
	}
}

// registerKong registers a gateway's metrics under Kong's names.
func registerKong(ctx caddy.Context, g kongGateway) error {
	c, err := metrics.RegisterShared(ctx, new(kongCollector))
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.gateways = append(c.gateways, g)
	return nil
}

// Interface guard
var _ prometheus.Collector = (*kongCollector)(nil)
