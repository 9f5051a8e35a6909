package gateway

import (
	"fmt"
	"strings"

	"go.uber.org/zap"
	"golang.org/x/net/http/httpguts"

	"github.com/rgate/rgate/internal/entry"
)

// droppedUpgrade identifies an upgrade offer that was logged.
type droppedUpgrade struct{ protocol, route string }

// Limits of the memory for logged offers, whose contents clients choose.
const (
	maxDroppedUpgrades = 1000
	maxUpgradeName     = 64
)

// logDropped logs a removed upgrade offer once for each protocol and route.
func (g *Gateway) logDropped(protocol, route, backend string) {
	protocol = strings.ToLower(protocol[:min(len(protocol), maxUpgradeName)])
	if !g.dropped.First(droppedUpgrade{strings.Clone(protocol), route}, maxDroppedUpgrades) {
		return
	}
	message := "removed a protocol from the Upgrade field: to forward it, add it to upgrades of the backend"
	if entry.CarriesRequests(protocol) {
		message = "removed a protocol from the Upgrade field: its requests would bypass the policies"
	}
	g.logger.Warn(message, zap.String("upgrade", protocol), zap.String("route", route), zap.String("backend", backend))
}

// checkUpgrades reports the first protocol that is invalid or would bypass the
// policies.
func (b *Backend) checkUpgrades(path string) error {
	for i, protocol := range b.Upgrades {
		name, version, versioned := strings.Cut(protocol, "/")
		switch at := fmt.Sprintf("%s.upgrades[%d]", path, i); {
		case protocol == "*" || !httpguts.ValidHeaderFieldName(name) || versioned && !httpguts.ValidHeaderFieldName(version):
			return problemf(at, "invalid protocol %q: must be a protocol name of the Upgrade field, such as websocket", protocol)
		case entry.CarriesRequests(protocol):
			return problemf(at, "invalid protocol %q: requests in this protocol would bypass the policies: remove it, and set scheme to h2c or https for an HTTP/2 backend", protocol)
		}
	}
	return nil
}
