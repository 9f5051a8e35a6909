package gateway

import (
	"fmt"
	"strings"

	"go.uber.org/zap"
	"golang.org/x/net/http/httpguts"

	"github.com/rgate/rgate/internal/entry"
)

// droppedOffer is an offer to switch protocols that was dropped, and logged.
type droppedOffer struct{ protocol, route string }

// A client chooses what it offers: beyond this many, and of longer ones, nothing is kept.
const (
	mostDroppedOffers = 1000
	longestOffer      = 64
)

// logDropped logs once for each protocol and route that an offer was dropped.
func (g *Gateway) logDropped(protocol, route, backend string) {
	protocol = strings.ToLower(protocol[:min(len(protocol), longestOffer)])
	if g.dropped.First(droppedOffer{strings.Clone(protocol), route}, mostDroppedOffers) {
		g.logger.Warn("upgrade offer dropped: name the protocol in the backend's option upgrades to pass it",
			zap.String("upgrade", protocol), zap.String("route", route), zap.String("backend", backend))
	}
}

// checkUpgrades reports the first protocol that is none, or that would lead past the
// policies.
func (b *Backend) checkUpgrades(path string) error {
	for i, protocol := range b.Upgrades {
		name, version, versioned := strings.Cut(protocol, "/")
		switch at := fmt.Sprintf("%s.upgrades[%d]", path, i); {
		case protocol == "*" || !httpguts.ValidHeaderFieldName(name) || versioned && !httpguts.ValidHeaderFieldName(version):
			return problemf(at, "invalid protocol %q: must be a name as in the Upgrade field, such as websocket", protocol)
		case entry.CarriesRequests(protocol):
			return problemf(at, "invalid protocol %q: its requests would bypass the policies: remove it, and set scheme to h2c or https for a backend that speaks HTTP/2", protocol)
		}
	}
	return nil
}
