package gateway

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/rgate/rgate/internal/testkit"
)

func TestFallbacksAreCheckedOnAllLevels(t *testing.T) {
	const valid = `"routes": [{"path_prefix": "/", "backend": "a"}], "backends": [{"name": "a", "dial": ["127.0.0.1:1"]}, {"name": "b", "dial": ["127.0.0.1:2"]}, {"name": "a-fallback", "dial": ["127.0.0.1:3"]}]`
	to := func(backend string) string {
		return fmt.Sprintf(`{"handler": "rgate_fallback", "backend": %q}`, backend)
	}
	const group = `{"path_prefix": "/g", "routes": [{"path_prefix": "/", "backend": "a", "handle": [%s]}], "handle": [%s], "groups": [{"path_prefix": "/h", "routes": [{"path_prefix": "/", "backend": "a"}], "handle": [%s]}]}`
	for _, tc := range []struct {
		what, config, path string // path of the error; empty: valid
		used               []string
	}{
		{"none", `{` + valid + `}`, "", nil},
		{"of the gateway", `{"handle": [{"handler": "headers"}, ` + to("b") + `], ` + valid + `}`, "", []string{"b"}},
		{"unknown", `{"handle": [{"handler": "headers"}, ` + to("c") + `], ` + valid + `}`, "handle[1].backend", nil},
		{"unknown and off", `{"handle": [{"handler": "rgate_fallback", "backend": "c", "disabled": true}], ` + valid + `}`, "", nil},
		{"of a group", `{"groups": [` + fmt.Sprintf(group, to("b"), to("b"), to("c")) + `], ` + valid + `}`, "groups[0].groups[0].handle[0].backend", nil},
		{"of another group", `{"groups": [` + fmt.Sprintf(group, to("b"), to("c"), to("b")) + `], ` + valid + `}`, "groups[0].handle[0].backend", nil},
		{"of a route", `{"groups": [` + fmt.Sprintf(group, to("c"), to("b"), to("b")) + `], ` + valid + `}`, "groups[0].routes[0].handle[0].backend", nil},
		{"in a subroute", `{"handle": [{"handler": "subroute", "routes": [{"handle": [{"handler": "headers"}, ` + to("c") + `]}]}], ` + valid + `}`, "handle[0].routes[0].handle[1].backend", nil},
		{"another word", `{"handle": [{"handler": "vars", "rgate_fallback": "c"}], ` + valid + `}`, "", nil},
		{"by name, anywhere", `{"handle": [` + to("") + `], ` + valid + `}`, "", []string{"a-fallback", "a-fallback-fallback", "b-fallback"}},
		{"of a backend", `{"routes": [], "backends": [{"name": "a", "dial": ["127.0.0.1:1"], "around": [` + to("") + `]}, {"name": "a-fallback", "dial": ["127.0.0.1:1"]}]}`, "", []string{"a-fallback"}},
		{"by name, where there is none", `{"routes": [], "backends": [{"name": "a", "dial": ["127.0.0.1:1"]}, {"name": "a-fallback", "dial": ["127.0.0.1:1"], "around": [` + to("") + `]}]}`, "backends[1].around[0]", nil},
		{"by name, where there are none", `{"handle": [{"handler": "rgate_fallback", "cached": 0}], "routes": [], "backends": [{"name": "a", "dial": ["127.0.0.1:1"]}]}`, "handle[0]", nil},
		{"a response", `{"routes": [], "backends": [{"name": "a", "dial": ["127.0.0.1:1"], "around": [{"handler": "rgate_fallback", "response": {}}]}]}`, "", []string{"a-fallback"}},
		{"stored responses", `{"routes": [], "backends": [{"name": "a", "dial": ["127.0.0.1:1"], "around": [{"handler": "rgate_fallback", "cached": "10m"}]}]}`, "", []string{"a-fallback"}},
		{"itself", `{"routes": [], "backends": [{"name": "a", "dial": ["127.0.0.1:1"], "around": [` + to("a") + `]}]}`, "backends[0].around[0].backend", nil},
	} {
		g := new(Gateway)
		if err := json.Unmarshal([]byte(tc.config), g); err != nil {
			t.Fatalf("%s: %v", tc.what, err)
		}
		path := ""
		if err := g.Check(); err != nil {
			path = err.(*Problem).Path
		}
		if path != tc.path {
			t.Errorf("%s: a problem at %q, want it at %q", tc.what, path, tc.path)
		}
		used := make(map[string]bool)
		if g.markFallbacks(used); tc.path == "" && !slices.Equal(slices.Sorted(maps.Keys(used)), tc.used) {
			t.Errorf("%s: used are %v, want %v", tc.what, used, tc.used)
		}
	}
}

// null is a valid element of a list in JSON.
func TestNullIsReported(t *testing.T) {
	for text, want := range map[string]string{
		`{"backends": [null]}`: "the backend is empty",
		`{"backends": [{"name": "a", "dial": ["h:1"]}], "routes": [null]}`: "the route is empty",
		`{"backends": [{"name": "a", "dial": ["h:1"]}], "groups": [null]}`: "the group has no routes",
	} {
		var g Gateway
		if err := json.Unmarshal([]byte(text), &g); err != nil {
			t.Fatal(err)
		}
		if err := g.Check(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error is %v, want %q", text, err, want)
		}
	}
}

func TestNullInProxyIsEmpty(t *testing.T) {
	for _, proxy := range []string{"null", `{"transport": null}`, `{"load_balancing": null}`, `{"headers": null}`, `{"health_checks": null}`} {
		config := `{"name": "` + t.Name() + `", "routes": [{"path_prefix": "/", "backend": "a"}], "backends": [{"name": "a", "dial": ["127.0.0.1:1"], "proxy": ` + proxy + `}]}`
		if _, err := testkit.Context(t).LoadModuleByID("http.handlers.rgate", []byte(config)); err != nil {
			t.Errorf("%s: %v", proxy, err)
		}
	}
}
