package policy

import (
	"net/http"
	"strings"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// Header fields by which a backend learns who sent a request. What a client sends
// in them is never passed on; see StripIdentity.
const (
	HeaderUserID           = "X-User-Id"
	HeaderConsumerUsername = "X-Consumer-Username"
	HeaderConsumerScopes   = "X-Consumer-Scopes"
	HeaderGatewayService   = "X-Gateway-Service"

	consumerPrefix = "X-Consumer-"
)

const strippedVar = "rgate.identity_stripped"

// StripIdentity takes away what a client says about its own identity: X-User-ID,
// X-Gateway-Service and every X-Consumer-*. Of the calls for one request, only the
// first has an effect, so that it takes nothing that the gateway itself has set.
func StripIdentity(r *http.Request) {
	if caddyhttp.GetVar(r.Context(), strippedVar) != nil {
		return
	}
	KeepIdentity(r)
	for name := range r.Header {
		if name == HeaderUserID || name == HeaderGatewayService || isConsumer(name) || lookalike(name) {
			delete(r.Header, name)
		}
	}
}

// KeepIdentity makes StripIdentity do nothing for a request, whose sender is
// trusted.
func KeepIdentity(r *http.Request) {
	caddyhttp.SetVar(r.Context(), strippedVar, true)
}

func isConsumer(name string) bool { return strings.HasPrefix(name, consumerPrefix) }

// lookalike reports whether a field would be taken for one about identity by a
// server that, like CGI, makes underscores of dashes.
func lookalike(name string) bool {
	if strings.IndexByte(name, '_') < 0 {
		return false
	}
	switch name = http.CanonicalHeaderKey(strings.ReplaceAll(name, "_", "-")); name {
	case HeaderUserID, HeaderGatewayService:
		return true
	}
	return isConsumer(name)
}

const authenticatedVar = "rgate.authenticated"

// Authenticate notes that somebody in particular has sent a request. What is kept
// for others, such as a cache, must take it as it takes one with an Authorization
// field, which may have been hidden from the backend.
func Authenticate(r *http.Request) {
	caddyhttp.SetVar(r.Context(), authenticatedVar, true)
}

// Authenticated reports whether somebody in particular has sent a request: whom a
// policy has authenticated, or who sends credentials.
func Authenticated(r *http.Request) bool {
	_, authenticated := PlaceAndSender(r)
	return authenticated
}

// PlaceAndSender is PlaceOf and Authenticated in one, which takes less time than both.
func PlaceAndSender(r *http.Request) (place Place, authenticated bool) {
	vars, _ := r.Context().Value(caddyhttp.VarsCtxKey).(map[string]any)
	if exchange, ok := vars[ExchangeVar].(Exchange); ok {
		place = exchange.Place()
	}
	return place, vars[authenticatedVar] != nil || r.Header["Authorization"] != nil
}
