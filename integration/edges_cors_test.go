package integration

import (
	"strings"
	"testing"
)

// The origin null, which every page can have for a frame, was allowed to use the cookies of
// users.
func TestD13TheOriginNullWithCredentialsIsRefused(t *testing.T) {
	t.Parallel()
	for options, right := range map[string]bool{
		`allowed_origins: ["null"], allow_credentials: true`:                       false,
		`allowed_origins: ["https://a.example", "null"], allow_credentials: true`:  false,
		`allowed_origins: ["~null|https://a\\.example"], allow_credentials: true`:  false,
		`allowed_origins: ["null"]`:                                                true,
		`allowed_origins: ["~https://a\\.example|null"], allow_credentials: false`: true,
		`allowed_origins: ["https://null.example"], allow_credentials: true`:       true,
	} {
		file := writeFile(t, "rgate.yaml", "routes:\n- {path_prefix: /, backend: b}\ncors: {"+options+"}\nbackends: [{name: b, dial: [\"127.0.0.1:1\"]}]\n")
		done := rgate(t, nil, "validate", "-c", file, "--adapter", "rgate")
		if (done.code == 0) != right || !right && !strings.Contains(done.stderr, "rgate.yaml:3: allow_credentials with") {
			t.Errorf("%s: exit code %d, %s", options, done.code, done.stderr)
		}
	}
}
