package caddyfile

import (
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/rgate/rgate/internal/options"
	"github.com/rgate/rgate/policy"
)

// probe is a policy with options of all supported types.
type probe struct {
	policy.Base
	Origins []string          `json:"origins,omitempty" caddyfile:"arg"`
	Count   int               `json:"count,omitempty"`
	Wait    caddy.Duration    `json:"wait,omitempty"`
	Most    options.Size      `json:"most,omitempty"`
	Strict  *bool             `json:"strict,omitempty"`
	Limits  []probeLimit      `json:"limits,omitempty"`
	Set     map[string]string `json:"set,omitempty"`
	Inner   *probeLimit       `json:"inner,omitempty"`
}

type probeLimit struct {
	Requests int            `json:"requests,omitempty" caddyfile:"arg"`
	Window   caddy.Duration `json:"window,omitempty" caddyfile:"arg"`
}

// plain is a policy without options.
type plain struct{ policy.Base }

func (*probe) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers.rgate_probe", New: func() caddy.Module { return new(probe) }}
}

func (p *probe) Check() error {
	if len(p.Limits) > 1 && p.Limits[1].Requests < 0 {
		return options.Errorf("limits[1].requests", "requests %d is negative: use 1 or more", p.Limits[1].Requests)
	}
	return nil
}

func (*probe) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	return next.ServeHTTP(w, r)
}

func (*plain) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers.rgate_plain", New: func() caddy.Module { return new(plain) }}
}

func (*plain) Check() error { return nil }

func (*plain) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	return next.ServeHTTP(w, r)
}

func init() {
	caddy.RegisterModule(new(probe))
	caddy.RegisterModule(new(plain))
	httpcaddyfile.RegisterHandlerDirective("rgate_probe", policy.Directive[probe])
	httpcaddyfile.RegisterHandlerDirective("rgate_plain", policy.Directive[plain])
	httpcaddyfile.RegisterDirectiveOrder("rgate_probe", httpcaddyfile.Before, "handle")
	httpcaddyfile.RegisterDirectiveOrder("rgate_plain", httpcaddyfile.Before, "handle")
}

// Policies in YAML, in JSON, and as printed in a Caddyfile.
var probes = map[string]struct{ yaml, json, caddyfile string }{
	"nothing": {"probe:", `{}`, "probe"},
	"true":    {"probe: true", `{}`, "probe"},
	"no map":  {"probe: {}", `{}`, "probe"},
	"false":   {"probe: false", `{"disabled":true}`, "probe off"},
	"off":     {"probe: off", `{"disabled":true}`, "probe off"},
	"a value": {"probe: https://a", `{"origins":["https://a"]}`, "probe {\n\torigins https://a\n}"},
	"a list":  {"probe: [https://a, b]", `{"origins":["https://a","b"]}`, "probe {\n\torigins https://a b\n}"},
	"without any option": {
		"plain: {}", `{}`, "plain",
	},
	"all kinds": {
		`probe: {count: 3, wait: 1m30s, most: 64KiB, strict: false, limits: [{requests: 5, window: 1s}, {requests: 9}], set: {X-A: "b c", "X D": "{http.rgate.route}"}, inner: {window: 2h}}`,
		`{"count":3,"inner":{"window":7200000000000},"limits":[{"requests":5,"window":1000000000},{"requests":9}],"most":65536,"set":{"X D":"{http.rgate.route}","X-A":"b c"},"strict":false,"wait":90000000000}`,
		"probe {\n\tcount 3\n\tinner {\n\t\twindow 2h\n\t}\n\tlimits {\n\t\trequests 5\n\t\twindow 1s\n\t}\n\tlimits {\n\t\trequests 9\n\t}\n\tmost 65536\n" +
			"\tset {\n\t\t\"X D\" {http.rgate.route}\n\t\tX-A \"b c\"\n\t}\n\tstrict false\n\twait 1m30s\n}",
	},
}

// The positions of a policy: the text before it in YAML, the indentation in the
// Caddyfile, and the text before it in the Caddyfile.
var probePlaces = map[string]struct{ yaml, indent, before string }{
	"gateway":    {"routes: [{path_prefix: /, backend: a}]\nbackends: [{name: a, dial: ['127.0.0.1:1']}]\n", "", "\t\t"},
	"group":      {"backends: [{name: a, dial: ['127.0.0.1:1']}]\ngroups:\n  - routes: [{path_prefix: /, backend: a}]\n", "    ", "\t\t\t"},
	"operations": {"operations:\n  path: /ops\n", "  ", "\t\t\t"},
	"route":      {"backends: [{name: a, dial: ['127.0.0.1:1']}]\nroutes:\n  - path_prefix: /\n    backend: a\n", "    ", "\t\t\t"},
	"backend":    {"routes: [{path_prefix: /, backend: a}]\nbackends:\n  - name: a\n    dial: ['127.0.0.1:1']\n", "    ", "\t\t\t"},
}

func TestPoliciesUnderTheirShortNames(t *testing.T) {
	for place, at := range probePlaces {
		for name, test := range probes {
			yaml := at.yaml + at.indent + test.yaml + "\n"
			config, err := adapt(yaml)
			if err != nil {
				t.Errorf("%s of the %s: %v", name, place, err)
				continue
			}
			g := decodeGateway(t, config)
			raw := g.HandlersRaw
			switch place {
			case "operations":
				raw = g.Operations.HandlersRaw
			case "group":
				raw = g.Groups[0].HandlersRaw
			case "route":
				raw = g.Routes[0].HandlersRaw
			case "backend":
				raw = g.Backends[0].AroundRaw
			}
			handler := "rgate_" + strings.Trim(strings.Fields(test.yaml)[0], ":")
			want := strings.Replace(strings.Replace(test.json, "{", `{"handler":"`+handler+`",`, 1), ",}", "}", 1)
			if len(raw) != 1 || !strings.Contains(string(raw[0]), `"handler":"`+handler+`"`) {
				t.Errorf("%s of the %s: got %s", name, place, raw)
				continue
			}
			sameJSON(t, name, string(raw[0]), want)

			printed, err := Print([]byte(yaml), "")
			if err != nil {
				t.Errorf("printing %s of the %s: %v", name, place, err)
				continue
			}
			indent := at.before
			if place == "backend" {
				indent += "\t"
			}
			if want := strings.ReplaceAll("\n"+test.caddyfile+"\n", "\n", "\n"+indent); !strings.Contains(string(printed), strings.TrimRight(want, "\t")) {
				t.Errorf("%s of the %s: printed\n%s\nwant\n%s", name, place, printed, want)
			}
		}
	}
}

func TestPoliciesComeAfterHandlersAndInOrder(t *testing.T) {
	config, err := adapt("probe:\nplain:\nhandle: [{handler: headers}]\n")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, raw := range decodeGateway(t, config).HandlersRaw {
		names = append(names, string(raw))
	}
	if got := strings.Join(names, " "); got != `{"handler":"headers"} {"handler":"rgate_probe"} {"handler":"rgate_plain"}` {
		t.Errorf("got %s", got)
	}
}

func TestBadPolicies(t *testing.T) {
	for yaml, want := range map[string]string{
		"\nprobee: 1":         `2: unknown key "probee" (did you mean "probe"?)`,
		"routes:\n- prob: {}": `2: unknown key "prob" (did you mean "probe"?)`,
		"\nplain: 5":          "2: plain must be a map of its options, not the number 5",
		"\nplain: [a]":        "2: plain must be a map of its options, not a list",
		"probe:\n  cuont: 1":  `2: unknown key "cuont" (did you mean "count"?)`,
		"probe:\n  wait: 5":   "2: probe.wait has no unit: write 5s for seconds, or use ms, m, h or d",
		"probe:\n  most: big": `2: probe.most must be a size such as 512KB, 10MB or 1GiB, not the text "big"`,
		"probe:\n  limits:\n  - requests: 1\n  - requests: -1": "4: requests -1 is negative: use 1 or more",
		"probe: false\nprobe: true":                            `2: duplicate key "probe": remove this one or the one in line 1`,
	} {
		_, err := adapt(yaml)
		var located *Error
		if !errors.As(err, &located) || err.Error() != "rgate.yaml:"+want {
			t.Errorf("%q:\ngot  %v\nwant rgate.yaml:%s", yaml, err, want)
		}
	}
}

func TestServerOptions(t *testing.T) {
	const yaml = "server:\n  trusted_proxies: [private_ranges, 192.0.2.1]\n  max_header_size: 32KiB\n" +
		"  timeouts: {read_header: 10s, read_body: 5m, read_body_idle: 30s, write: 10m, write_idle: 20s, idle: 2m}\n"
	config, err := adapt(yaml)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`"max_header_bytes":32768`, `"read_header_timeout":10000000000`, `"read_timeout":300000000000`, `"read_idle_timeout":30000000000`,
		`"write_timeout":600000000000`, `"write_idle_timeout":20000000000`, `"idle_timeout":120000000000`,
		`"trusted_proxies":{"ranges":["192.168.0.0/16"`, `"192.0.2.1"],"source":"static"}`, `"trusted_proxies_strict":1`,
	} {
		if !strings.Contains(string(config), want) {
			t.Errorf("%s is missing in %s", want, config)
		}
	}
	printed, err := Print([]byte(yaml), "")
	if err != nil {
		t.Fatal(err)
	}
	const want = "{\n\tgrace_period 30s\n\tservers {\n\t\ttrusted_proxies static private_ranges 192.0.2.1\n\t\ttrusted_proxies_strict\n\t\ttimeouts {\n\t\t\tread_header 10s\n\t\t\tread_body 5m\n" +
		"\t\t\tread_body_idle 30s\n\t\t\twrite 10m\n\t\t\twrite_idle 20s\n\t\t\tidle 2m\n\t\t}\n\t\tmax_header_size 32768\n\t}\n}\n"
	if !strings.HasPrefix(string(printed), want) {
		t.Errorf("printed\n%s", printed)
	}
	for yaml, want := range map[string]string{
		"server:\n  trusted_proxies: [unknown]":        `2: invalid range "unknown": use an address, a range such as 10.0.0.0/8, or private_ranges`,
		"server:\n  timeouts: {idle: -1s}":             `2: invalid idle: must not be negative: use 0s to disable the timeout, or remove it to use the default`,
		"server:\n  timeouts: {idel: 1s}":              `2: unknown key "idel" (did you mean "idle"?)`,
		"server:\n\n  max_header_size: 2GiB":           `3: invalid max_header_size 2147483648: must be at most 1GiB`,
		"server:\n  max_header_size: {a: b}\nroutes: ": `2: server.max_header_size must be a size such as 512KB, 10MB or 1GiB, not a map`,
	} {
		if _, err := adapt(yaml); err == nil || err.Error() != "rgate.yaml:"+want {
			t.Errorf("%q:\ngot  %v\nwant %s", yaml, err, want)
		}
	}
}
