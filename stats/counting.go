package stats

import (
	"sync"

	"github.com/caddyserver/caddy/v2"
)

// counting holds the number of open handles per configuration and name.
var counting = struct {
	sync.Mutex
	handles map[counted]int
}{handles: make(map[counted]int)}

type counted struct {
	config any // metrics registry, which is unique per configuration
	name   string
}

// Counts reports whether a handle of the configuration is open under the name.
func Counts(ctx caddy.Context, name string) bool {
	counting.Lock()
	defer counting.Unlock()
	return counting.handles[counted{ctx.GetMetricsRegistry(), name}] > 0
}

func (c counted) begin() {
	counting.Lock()
	defer counting.Unlock()
	counting.handles[c]++
}

func (c counted) end() {
	counting.Lock()
	defer counting.Unlock()
	if counting.handles[c]--; counting.handles[c] == 0 {
		delete(counting.handles, c)
	}
}
