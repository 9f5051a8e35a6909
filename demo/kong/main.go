// Command kong is a mock of Kong. It exposes bandwidth counters with Kong's metric
// names in the Prometheus text format.
//
//	GET  /metrics                                       the counters
//	POST /traffic?service=s&route=r&ingress=1&egress=2  adds bytes to the counters
//
// It listens on port 8001. As in Kong, counters are reset on startup.
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"maps"
	"net/http"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// series is the set of labels of a counter.
type series struct{ service, route, direction string }

func (s series) String() string {
	return fmt.Sprintf(`kong_bandwidth_bytes{service=%q,route=%q,direction=%q,workspace="default",consumer=""}`, s.service, s.route, s.direction)
}

// counters holds the bandwidth counters.
type counters struct {
	mu    sync.Mutex
	bytes map[series]int64 // Guarded by mu.
}

// count adds the bytes in the query to the counters.
func (c *counters) count(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, direction := range []string{"ingress", "egress"} {
		text := r.FormValue(direction)
		if text == "" {
			continue
		}
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil || n < 0 {
			http.Error(w, "invalid "+direction+": must be a number of bytes", http.StatusBadRequest)
			return
		}
		c.bytes[series{r.FormValue("service"), r.FormValue("route"), direction}] += n
	}
	w.WriteHeader(http.StatusNoContent)
}

// show writes the counters in the Prometheus text format.
func (c *counters) show(w http.ResponseWriter, _ *http.Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var text strings.Builder
	text.WriteString("# HELP kong_datastore_reachable Datastore reachable from Kong, 0 is unreachable\n# TYPE kong_datastore_reachable gauge\nkong_datastore_reachable 1\n")
	if len(c.bytes) > 0 {
		text.WriteString("# HELP kong_bandwidth_bytes Total bandwidth (ingress/egress) throughput in bytes\n# TYPE kong_bandwidth_bytes counter\n")
	}
	lines := make(map[string]int64, len(c.bytes))
	for s, n := range c.bytes {
		lines[s.String()] = n
	}
	for _, line := range slices.Sorted(maps.Keys(lines)) {
		fmt.Fprintf(&text, "%s %d\n", line, lines[line])
	}
	w.Header().Set("Content-Type", "text/plain; version=0.0.4")
	_, _ = w.Write([]byte(text.String())) // fails if the client has disconnected
}

func main() {
	c := &counters{bytes: make(map[series]int64)}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /metrics", c.show)
	mux.HandleFunc("POST /traffic", c.count)
	server := &http.Server{Addr: ":8001", Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	go func() {
		<-ctx.Done()
		_ = server.Close() // not Shutdown: do not wait for requests
	}()
	if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		log.Fatal(err)
	}
}
