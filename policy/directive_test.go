package policy

import (
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/rgate/rgate/internal/options"
)

// sample is a policy with options of all types.
type sample struct {
	Base
	Requests int                 `json:"requests,omitempty" caddyfile:"arg"`
	Window   caddy.Duration      `json:"window,omitempty" caddyfile:"arg"`
	Paths    []string            `json:"paths,omitempty" caddyfile:"arg"`
	Most     options.Size        `json:"most,omitempty"`
	Share    float64             `json:"share,omitempty"`
	Ports    []uint16            `json:"ports,omitempty"`
	Strict   bool                `json:"strict,omitempty"`
	Leeway   *caddy.Duration     `json:"leeway,omitempty"`
	Cache    *bool               `json:"cache,omitempty"`
	Limits   []sampleLimit       `json:"limits,omitempty"`
	Others   []*sampleLimit      `json:"others,omitempty"`
	Inner    sampleLimit         `json:"inner,omitzero"`
	Set      map[string]string   `json:"set,omitempty"`
	Add      map[string][]string `json:"add,omitempty"`
	Claims   map[string]any      `json:"claims,omitempty"`
	Nested   map[string]sample   `json:"nested,omitempty"`
	Probes   int                 `json:"probes,omitempty" default:"1"`
	Wait     caddy.Duration      `json:"wait,omitempty" default:"1s"`
}

type sampleLimit struct {
	Name     string `json:"name,omitempty" caddyfile:"arg"`
	Requests int    `json:"requests,omitempty"`
	Burst    int    `json:"burst,omitempty" caddyfile:"arg" default:"5"`
}

func (s *sample) Check() error {
	for i, limit := range s.Limits {
		if limit.Requests < 0 {
			return options.Errorf("limits["+string(rune('0'+i))+"].requests", "requests is negative: use 1 or more")
		}
	}
	if s.Share < 0 {
		return errors.New("share is negative: use 0 to 1")
	}
	return nil
}

func (*sample) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers.rgate_sample", New: func() caddy.Module { return new(sample) }}
}

func (*sample) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	return next.ServeHTTP(w, r)
}

func unmarshalSample(text string) (*sample, error) {
	s := new(sample)
	d := caddyfile.NewTestDispenser(text)
	d.Next()
	return s, options.Unmarshal(d, s)
}

func TestUnmarshal(t *testing.T) {
	for text, want := range map[string]string{
		"sample":                 `{}`,
		"sample off":             `{"disabled":true}`,
		"sample {\n disabled\n}": `{"disabled":true}`,
		"sample 5":               `{"requests":5}`,
		"sample 5 1m a b":        `{"requests":5,"window":60000000000,"paths":["a","b"]}`,
		"sample 5 {\n window 1h\n paths a\n paths b c\n}":           `{"requests":5,"window":3600000000000,"paths":["a","b","c"]}`,
		"sample {\n most 64KiB\n share 0.5\n ports 80 443\n}":       `{"most":65536,"share":0.5,"ports":[80,443]}`,
		"sample {\n strict\n leeway 0s\n cache false\n}":            `{"strict":true,"leeway":0,"cache":false}`,
		"sample {\n strict false\n cache\n}":                        `{"cache":true}`,
		"sample {\n limits a {\n requests 1\n }\n limits b\n}":      `{"limits":[{"name":"a","requests":1},{"name":"b"}]}`,
		"sample {\n others a {\n requests 1\n }\n others b\n}":      `{"others":[{"name":"a","requests":1},{"name":"b"}]}`,
		"sample {\n inner a {\n requests 1\n }\n}":                  `{"inner":{"name":"a","requests":1}}`,
		"sample {\n set X-A b\n set {\n X-B \"c d\"\n }\n}":         `{"set":{"X-A":"b","X-B":"c d"}}`,
		"sample {\n add X-A b c\n add X-A d\n add {\n X-B e\n }\n}": `{"add":{"X-A":["b","c","d"],"X-B":["e"]}}`,
		"sample {\n claims tenant acme\n}":                          `{"claims":{"tenant":"acme"}}`,
	} {
		got, err := unmarshalSample(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if encoded, _ := json.Marshal(got); string(encoded) != want && canonicalJSON(string(encoded)) != canonicalJSON(want) {
			t.Errorf("%s:\ngot  %s\nwant %s", text, encoded, want)
		}
	}
}

func canonicalJSON(text string) string {
	var v any
	_ = json.Unmarshal([]byte(text), &v)
	encoded, _ := json.Marshal(v)
	return string(encoded)
}

func TestUnmarshalErrors(t *testing.T) {
	for text, want := range map[string]string{
		"sample many":                                             "requests must be a whole number, not 'many', at Testfile:1",
		"sample 5 soon":                                           "window must be a duration such as 500ms, 30s or 5m, not 'soon'",
		"sample {\n requests\n}":                                  "wrong argument count",
		"sample {\n requests 1 2\n}":                              "unexpected argument '2'",
		"sample 5 {\n requests 6\n}":                              "'requests' is given twice: remove this one or the one in line 1",
		"sample {\n most big\n}":                                  "most must be a size such as 512KB, 10MB or 1GiB, not 'big'",
		"sample {\n share much\n}":                                "share must be a number",
		"sample {\n ports -1\n}":                                  "ports must be a whole number of at least 0, not '-1'",
		"sample {\n ports 70000\n}":                               "ports must be a whole number of at least 0",
		"sample {\n strict maybe\n}":                              "strict must be true or false",
		"sample {\n requsts 1\n}":                                 `unrecognized subdirective 'requsts' (did you mean "requests"?): use requests, window, paths,`,
		"sample {\n limits a 1 b\n}":                              "unexpected argument 'b'",
		"sample {\n limits a 0\n}":                                "invalid burst 0: must be above 0: increase it, or remove it to use the default (5), at Testfile:2",
		"sample {\n probes 0\n}":                                  "invalid probes 0: must be above 0: increase it, or remove it to use the default (1), at Testfile:2",
		"sample {\n wait 0s\n}":                                   "invalid wait 0s: must be above 0: increase it, or remove it to use the default (1s), at Testfile:2",
		"sample {\n limits a {\n nmae b\n }\n}":                   `unrecognized subdirective 'nmae' (did you mean "name"?)`,
		"sample {\n set\n}":                                       "wrong argument count",
		"sample {\n set X-A\n}":                                   "'X-A' requires a value",
		"sample {\n set X-A b c\n}":                               "unexpected argument 'c'",
		"sample {\n set X-A b\n set X-A c\n}":                     "'X-A' is given twice",
		"sample {\n paths\n}":                                     "wrong argument count",
		"sample {\n inner a\n inner b\n}":                         "'inner' is given twice",
		"sample {\n nested a b\n}":                                "option 'nested.a' is not supported in a Caddyfile: use YAML or JSON",
		"sample {\n limits a\n limits b {\n\n requests -1\n }\n}": "requests is negative: use 1 or more, at Testfile:5",
		"sample {\n share -1\n}":                                  "share is negative: use 0 to 1, at Testfile:1",
	} {
		_, err := unmarshalSample(text)
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "at Testfile:") {
			t.Errorf("%s:\ngot  %v\nwant %s", text, err, want)
		}
	}
}

// FuzzUnmarshal checks that no input causes a panic, and that each error has a
// position.
func FuzzUnmarshal(f *testing.F) {
	for _, seed := range []string{
		"sample 5 1m a {\n limits a {\n requests 1\n }\n set X b\n strict\n}", "sample off", "sample {\n inner {\n }\n add {\n a b c\n }\n}",
		"sample {\n claims {\n a b\n }\n nested a {\n requests 1\n }\n}", "sample {", "sample }", "sample {\n leeway\n}",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		d := caddyfile.NewTestDispenser(text)
		if !d.Next() {
			return
		}
		if err := options.Unmarshal(d, new(sample)); err != nil && !strings.Contains(err.Error(), "Testfile:") {
			t.Errorf("%q: the error has no place: %v", text, err)
		}
	})
}

func TestRanksFollowTheOrder(t *testing.T) {
	if Rank("rgate_cors") >= Rank("rgate_jwt") || Rank("authentication") >= Rank("rgate_require") || Rank("headers") != 0 {
		t.Error("the ranks are wrong")
	}
}

func TestArguments(t *testing.T) {
	info := new(sample).CaddyModule()
	if key, ok := options.Argument(info, false); key != "requests" || !ok {
		t.Errorf("a value is %s", key)
	}
	if key, ok := options.Argument(info, true); key != "paths" || !ok {
		t.Errorf("a list is %s", key)
	}
}

func TestSizes(t *testing.T) {
	for text, want := range map[string]options.Size{"5": 5, `"64KiB"`: 65536, `"10MB"`: 10_000_000, `"0"`: 0} {
		var s options.Size
		if err := json.Unmarshal([]byte(text), &s); err != nil || s != want {
			t.Errorf("%s: got %d, %v", text, s, err)
		}
	}
	for _, text := range []string{`"much"`, `-1`, `{}`, `"99999999999999999EB"`} {
		if err := json.Unmarshal([]byte(text), new(options.Size)); err == nil {
			t.Errorf("%s is a size", text)
		}
	}
}
