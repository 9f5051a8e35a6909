package gateway

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"

	"go.uber.org/zap"
	"golang.org/x/net/http/httpguts"

	"github.com/rgate/rgate/internal/entry"
)

// webSocket is the only protocol that requests may switch to unless a backend names
// others.
const webSocket = "websocket"

// asGET makes an extended CONNECT for a WebSocket (RFC 8441 and 9220) the GET that opens
// one in HTTP/1.1, which it stands for: to conditions, policies and statistics, they are
// the same.
func asGET(r *http.Request) {
	r.Method = http.MethodGet
	delete(r.Header, ":protocol")
	r.Header["Connection"], r.Header["Upgrade"] = []string{"Upgrade"}, []string{webSocket}
	if r.ProtoMajor == 3 {
		r.Proto = "HTTP/3.0"
	}
}

// asConnect returns what asGET made a GET of as Caddy's proxy knows it.
func asConnect(r *http.Request) *http.Request {
	connect := *r
	connect.Method = http.MethodConnect
	if connect.ProtoMajor == 3 {
		connect.Proto = webSocket
	} else {
		connect.Header = maps.Clone(r.Header)
		connect.Header[":protocol"] = []string{webSocket}
	}
	return &connect
}

// dropUpgrades removes offers to switch to protocols that the backend does not name.
func (b *Backend) dropUpgrades(r *http.Request, ex *exchange) {
	for _, protocol := range entry.DroppedUpgrades(r) {
		ex.gateway.logDropped(protocol, ex.route.name, b.Name)
	}
	for _, protocol := range entry.DropUpgrades(r, b.takesUpgrade) {
		ex.gateway.logDropped(protocol, ex.route.name, b.Name)
	}
}

func (b *Backend) takesUpgrade(protocol string) bool {
	return slices.ContainsFunc(b.upgrades, func(known string) bool { return strings.EqualFold(known, protocol) })
}

// offers reports whether a request's header offers the protocol of a response's.
func offers(request, response http.Header) bool {
	protocol := response.Get("Upgrade")
	return protocol != "" && strings.EqualFold(protocol, request.Get("Upgrade")) &&
		httpguts.HeaderValuesContainsToken(request["Connection"], "upgrade")
}

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
