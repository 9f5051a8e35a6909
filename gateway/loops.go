package gateway

import (
	"net/http"

	"go.uber.org/zap"

	"github.com/rgate/rgate/policy"
)

const defaultMaxHops = 5

// maxHops returns the maximum number of times that a request may pass the gateway, or 0
// without a limit.
func (g *Gateway) maxHops() int {
	if g.MaxHops == nil {
		return defaultMaxHops
	}
	return *g.MaxHops
}

// checkHops reports whether the option max_hops is out of range.
func (g *Gateway) checkHops() error {
	if n := g.maxHops(); n < 0 || n > 1000 {
		return problemf("max_hops", "max_hops %d is out of range: use 1 to 1000, or 0 to disable it", n)
	}
	return nil
}

// refuseLoop responds to a request that has passed the gateway too often.
func (g *Gateway) refuseLoop(w http.ResponseWriter, r *http.Request) error {
	g.logger.Warn("request refused: the gateway is its own backend", zap.Int("max_hops", g.maxHops()), zap.String("path", r.URL.Path))
	policy.WriteStatus(w, r, http.StatusLoopDetected)
	return nil
}
