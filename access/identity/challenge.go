package identity

import (
	"net/http"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

const apiKeyVar = "rgate.keys_serve"

// AcceptAPIKey records that an API key could have authenticated the request.
func AcceptAPIKey(r *http.Request) { caddyhttp.SetVar(r.Context(), apiKeyVar, true) }

// ChallengeAPIKey adds a WWW-Authenticate challenge for an API key. Its scheme ApiKey is
// not registered.
func ChallengeAPIKey(header http.Header) {
	header.Add("WWW-Authenticate", `ApiKey realm="rgate"`)
}

// Challenge adds the WWW-Authenticate challenges for a request that is not authenticated.
func Challenge(header http.Header, r *http.Request) {
	header.Add("WWW-Authenticate", `Bearer realm="rgate"`)
	if caddyhttp.GetVar(r.Context(), apiKeyVar) != nil {
		ChallengeAPIKey(header)
	}
}
