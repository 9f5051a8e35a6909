package upstream

import (
	"maps"
	"net/http"
	"slices"
	"strings"

	"golang.org/x/net/http/httpguts"

	"github.com/rgate/rgate/internal/entry"
)

// webSocket is the only protocol that requests may switch to by default.
const webSocket = "websocket"

// WebSocketAsGET converts an extended CONNECT for a WebSocket (RFC 8441 and 9220) to
// the HTTP/1.1 form, a GET with Upgrade. Conditions, policies and statistics then
// handle both forms in the same way.
func WebSocketAsGET(r *http.Request) {
	r.Method = http.MethodGet
	delete(r.Header, ":protocol")
	r.Header["Connection"], r.Header["Upgrade"] = []string{"Upgrade"}, []string{webSocket}
	if r.ProtoMajor == 3 {
		r.Proto = "HTTP/3.0"
	}
}

// webSocketAsConnect reverts WebSocketAsGET, in the form that Caddy's proxy expects.
func webSocketAsConnect(r *http.Request) *http.Request {
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

// dropUpgrades removes and reports upgrade offers for protocols that the service does
// not support.
func (s *Service) dropUpgrades(r *http.Request) {
	for _, protocol := range entry.DroppedUpgrades(r) {
		s.options.OnDroppedUpgrade(r, protocol)
	}
	for _, protocol := range entry.DropUpgrades(r, s.supportsUpgrade) {
		s.options.OnDroppedUpgrade(r, protocol)
	}
}

func (s *Service) supportsUpgrade(protocol string) bool {
	return slices.ContainsFunc(s.options.Upgrades, func(known string) bool { return strings.EqualFold(known, protocol) })
}

// offers reports whether a request offers the protocol that a response switches to.
func offers(request, response http.Header) bool {
	protocol := response.Get("Upgrade")
	return protocol != "" && strings.EqualFold(protocol, request.Get("Upgrade")) &&
		httpguts.HeaderValuesContainsToken(request["Connection"], "upgrade")
}
