package policy

import (
	"slices"
	"strings"
	"testing"
)

func TestSecretsAreFound(t *testing.T) {
	for _, tc := range []struct{ what, gateway, headers, parameters string }{
		{"none", `{"routes": [{"handle": [{"handler": "rgate_cors", "header": "X-A", "query": "b"}]}]}`, "X-Api-Key", ""},
		{"by default", `{"handle": [{"handler": "rgate_api_key"}, {"handler": "rgate_jwt"}]}`, "X-Api-Key", ""},
		{"of keys", `{"handle": [{"handler": "rgate_api_key", "header": "x-partner", "query": "key", "cookie": "c"}]}`, "X-Api-Key X-Partner", "key"},
		{"of tokens", `{"groups": [{"groups": [{"handle": [{"handler": "rgate_jwt", "token_from": ["header:Authorization", "header:X-T", "query:t", "cookie:c"]}]}]}]}`, "X-Api-Key X-T", "t"},
		{"twice", `{"a": [{"handler": "rgate_api_key", "query": "t"}, {"handler": "rgate_jwt", "token_from": ["query:t", "header:x-api-key"]}]}`, "X-Api-Key", "t"},
		{"of providers, within another handler", `{"handle": [{"handler": "subroute", "routes": [{"handle": [{"handler": "authentication",
			"providers": {"rgate_api_key": {"header": "X-P"}, "rgate_jwt": {"token_from": ["query:q"]}}}]}]}]}`, "X-Api-Key X-P", "q"},
		{"what Caddy hides itself", `{"a": {"handler": "rgate_api_key", "header": "authorization"}}`, "X-Api-Key", ""},
		{"of other types", `{"a": {"handler": "rgate_api_key", "header": 1}, "b": {"handler": "rgate_jwt", "token_from": {"c": 1}}, "rgate_jwt": 7}`, "X-Api-Key", ""},
		{"no JSON", `{`, "X-Api-Key", ""},
	} {
		got, want := SecretsIn([]byte(tc.gateway)), Secrets{strings.Fields(tc.headers), strings.Fields(tc.parameters)}
		if !slices.Equal(got.Headers, want.Headers) || !slices.Equal(got.Parameters, want.Parameters) {
			t.Errorf("%s: got %v, want %v", tc.what, got, want)
		}
	}
}
