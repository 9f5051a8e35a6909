package identity

import (
	"net/http"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

const apiKeyVar = "rgate.keys_serve"

// AcceptAPIKey records that an API key would have authenticated a request that has none.
func AcceptAPIKey(r *http.Request) { caddyhttp.SetVar(r.Context(), apiKeyVar, true) }

// ChallengeAPIKey adds a challenge for an API key, for which there is no registered scheme.
func ChallengeAPIKey(header http.Header) {
	header.Add("WWW-Authenticate", `ApiKey realm="rgate"`)
}

// Challenge adds the challenges for a request that is not authenticated.
func Challenge(header http.Header, r *http.Request) {
	header.Add("WWW-Authenticate", `Bearer realm="rgate"`)
	if caddyhttp.GetVar(r.Context(), apiKeyVar) != nil {
		ChallengeAPIKey(header)
	}
}
