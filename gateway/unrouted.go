package gateway

import (
	"encoding/json"
	"net/http"
	"strings"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/rgate/rgate/policy"
)

const defaultMaxHops = 5

// maxHops returns the maximum number of times that a request may pass the gateway. 0
// means no limit.
func (g *Gateway) maxHops() int {
	if g.MaxHops == nil {
		return defaultMaxHops
	}
	return *g.MaxHops
}

// checkHops reports max_hops if it is out of range.
func (g *Gateway) checkHops() error {
	if n := g.maxHops(); n < 0 || n > 1000 {
		return problemf("max_hops", "invalid max_hops %d: must be 1 to 1000, or 0 to disable the limit", n)
	}
	return nil
}

// refuseLoop responds to a request that has passed the gateway too often.
func (g *Gateway) refuseLoop(w http.ResponseWriter, r *http.Request) error {
	g.logger.Warn("request rejected: a backend forwards requests back to the gateway", zap.Int("max_hops", g.maxHops()), zap.String("path", r.URL.Path))
	policy.WriteStatus(w, r, http.StatusLoopDetected)
	return nil
}

// refuseAmbiguous responds with 400 to a request that the router and the backend could
// assign to different routes.
func refuseAmbiguous(w http.ResponseWriter, r *http.Request) error {
	policy.WriteStatus(w, r, http.StatusBadRequest)
	return nil
}

// unroutedHandler responds to a request that no route matches. If only the method does
// not match, it responds with 405 and the allowed methods, else with the default
// response.
func (g *Gateway) unroutedHandler(allowed []string) caddyhttp.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) error {
		if len(allowed) > 0 {
			w.Header().Set("Allow", strings.Join(allowed, ", "))
			policy.WriteStatus(w, r, http.StatusMethodNotAllowed)
			return nil
		}
		g.DefaultResponse.writeTo(w, r)
		return nil
	}
}

func (d *DefaultResponse) writeTo(w http.ResponseWriter, r *http.Request) {
	status, body := http.StatusNotFound, ""
	if d != nil {
		body = d.Body
		if d.StatusCode != 0 {
			status = d.StatusCode
		}
	}
	if status == http.StatusNoContent || status == http.StatusNotModified {
		w.WriteHeader(status)
		return
	}
	contentType := "text/plain; charset=utf-8"
	if json.Valid([]byte(body)) {
		contentType = "application/json"
	}
	policy.WriteBody(w, r, status, contentType, []byte(body))
}
