package gateway

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	_ "github.com/caddyserver/caddy/v2/modules/standard"
)

func init() {
	httpcaddyfile.RegisterDirectiveOrder("rgate", httpcaddyfile.Before, "respond")
	httpcaddyfile.RegisterDirectiveOrder("rgate_stats", httpcaddyfile.Before, "handle")
}

// adaptBlock adapts an rgate directive with the given block. The block begins on line 3
// of the Caddyfile.
func adaptBlock(block string) (handler string, err error) {
	text := ":8080 {\n\trgate {\n" + block + "\n\t}\n}\n"
	result, _, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(text), map[string]any{"filename": "Caddyfile"})
	if err != nil {
		return "", err
	}
	var config struct {
		Apps struct {
			HTTP caddyhttp.App `json:"http"`
		} `json:"apps"`
	}
	if err := json.Unmarshal(result, &config); err != nil {
		return "", err
	}
	return string(config.Apps.HTTP.Servers["srv0"].Routes[0].HandlersRaw[0]), nil
}

func TestCaddyfile(t *testing.T) {
	const backends = "backend a {\ndial 127.0.0.1:1\n}\n"
	const inJSON = `"backends":[{"dial":["127.0.0.1:1"],"name":"a"}],`
	for name, test := range map[string]struct{ block, want string }{
		"empty":           {"", `{"handler":"rgate"}`},
		"name":            {"name edge", `{"handler":"rgate","name":"edge"}`},
		"default engine":  {"docker", `{"docker":[{}],"handler":"rgate"}`},
		"two engines":     {"docker tcp://a:1\ndocker tcp://b:1 {\ncert_path /c\n}", `{"docker":[{"host":"tcp://a:1"},{"cert_path":"/c","host":"tcp://b:1"}],"handler":"rgate"}`},
		"statistics path": {"stats /figures", `{"handler":"rgate","stats":{"path":"/figures"}}`},
		"statistics off":  {"stats off", `{"handler":"rgate","stats":{"disabled":true}}`},
		"status alone":    {"default_response 410", `{"default_response":{"status_code":410},"handler":"rgate"}`},
		"body alone":      {`default_response "not here"`, `{"default_response":{"body":"not here"},"handler":"rgate"}`},
		"body and status": {`default_response "not here" 410`, `{"default_response":{"body":"not here","status_code":410},"handler":"rgate"}`},
		"heredoc":         {"default_response <<HTML\n\t<p>no</p>\n\tHTML 410", `{"default_response":{"body":"\u003cp\u003eno\u003c/p\u003e","status_code":410},"handler":"rgate"}`},
		"response block":  {"default_response {\nbody 200\nstatus 410\n}", `{"default_response":{"body":"200","status_code":410},"handler":"rgate"}`},
		"labels repeated": {
			"backend a {\nmatch_labels a=1 b=2\nmatch_labels c=x=y a=1 d=\n}",
			`{"backends":[{"match_labels":{"a":"1","b":"2","c":"x=y","d":""},"name":"a"}],"handler":"rgate"}`,
		},
		"policy": {
			"backend a {\ndial 127.0.0.1:1\nlb_policy cookie lb secret {\nmax_age 1h\nfallback first\n}\nretries 0\n}",
			`{"backends":[{"dial":["127.0.0.1:1"],"lb_policy":{"fallback":{"policy":"first"},"max_age":3600000000000,"name":"lb","policy":"cookie","secret":"secret"},"name":"a","retries":0}],"handler":"rgate"}`,
		},
		"proxy with a handled response": {
			"backend a {\ndial 127.0.0.1:1\nproxy {\n@bad status 5xx\nhandle_response @bad {\nrespond later 503\n}\n}\n}",
			`{"backends":[{"dial":["127.0.0.1:1"],"name":"a","proxy":{"handle_response":[{"match":{"status_code":[5]},"routes":[{"handle":[{"body":"later","handler":"static_response","status_code":503}]}]}]}}],"handler":"rgate"}`,
		},
		"route without block": {backends + "route /api a", `{` + inJSON + `"handler":"rgate","routes":[{"backend":"a","path_prefix":"/api"}]}`},
		"routes before their backends": {
			"route /api a\n" + backends,
			`{` + inJSON + `"handler":"rgate","routes":[{"backend":"a","path_prefix":"/api"}]}`,
		},
		"directives in Caddy's order": {
			backends + "route /api a {\nuri strip_suffix /x\nheader X-A b\n}",
			`{` + inJSON + `"handler":"rgate","routes":[{"backend":"a","handle":[{"handler":"headers","response":{"set":{"X-A":["b"]}}},{"handler":"rewrite","strip_path_suffix":"/x"}],"path_prefix":"/api"}]}`,
		},
		"matchers of the gateway serve everywhere": {
			"@old header X-Old *\nheader @old X-A b\nbackend a {\ndial 127.0.0.1:1\naround {\nheader @old X-A c\n}\n}\nroute /api a {\n@new header X-New *\nheader @old X-A d\nheader @new X-A e\n}",
			`{"backends":[{"around":[{"handler":"subroute","routes":[{"handle":[{"handler":"headers","response":{"set":{"X-A":["c"]}}}],"match":[{"header":{"X-Old":["*"]}}]}]}],"dial":["127.0.0.1:1"],"name":"a"}],` +
				`"handle":[{"handler":"subroute","routes":[{"handle":[{"handler":"headers","response":{"set":{"X-A":["b"]}}}],"match":[{"header":{"X-Old":["*"]}}]}]}],"handler":"rgate",` +
				`"routes":[{"backend":"a","handle":[{"handler":"subroute","routes":[{"handle":[{"handler":"headers","response":{"set":{"X-A":["d"]}}}],"match":[{"header":{"X-Old":["*"]}}]},` +
				`{"handle":[{"handler":"headers","response":{"set":{"X-A":["e"]}}}],"match":[{"header":{"X-New":["*"]}}]}]}],"path_prefix":"/api"}]}`,
		},
		"a matcher that nothing uses": {"@old header X-Old *", `{"handler":"rgate"}`},
		"short names of rgate's handlers": {
			backends + "route /api a {\nstats /figures\n}",
			`{` + inJSON + `"handler":"rgate","routes":[{"backend":"a","handle":[{"handler":"rgate_stats","path":"/figures"}],"path_prefix":"/api"}]}`,
		},
		"conditions": {
			backends + "route /api a {\nheaders X-Api-Version 1 2\nheaders X-Api-Version 3\nheaders !X-Old\nquery a=b c=*\nquery a=d\n}",
			`{` + inJSON + `"handler":"rgate","routes":[{"backend":"a","headers":{"X-Api-Version":["1","2","3"],"X-Old":null},"path_prefix":"/api","query":{"a":["b","d"],"c":["*"]}}]}`,
		},
		"shares": {
			backends + "route /u/:id {\nbackends {\na 95\nb 5\n}\nsticky_key {http.rgate.param.id}\n}\nbackend b {\ndial 127.0.0.1:2\n}",
			`{"backends":[{"dial":["127.0.0.1:1"],"name":"a"},{"dial":["127.0.0.1:2"],"name":"b"}],"handler":"rgate",` +
				`"routes":[{"backends":[{"name":"a","weight":95},{"name":"b","weight":5}],"path_prefix":"/u/:id","sticky_key":"{http.rgate.param.id}"}]}`,
		},
		"groups": {
			"group /v1 {\nhosts x.example.com\nheaders X-A *\nquery a=b\ndeprecated {\nsince 2026-01-01\nsunset 2026-12-31\nlink https://example.com\n}\nheader X-B c\n" +
				"route a\nroute /u a\ngroup {\nroute /x a\n}\n}\ngroup {\nroute / a {\ndeprecated\n}\n}\n" + backends,
			`{` + inJSON + `"groups":[{"deprecated":{"link":"https://example.com","since":"2026-01-01","sunset":"2026-12-31"},"groups":[{"routes":[{"backend":"a","path_prefix":"/x"}]}],` +
				`"handle":[{"handler":"headers","response":{"set":{"X-B":["c"]}}}],"headers":{"X-A":["*"]},"hosts":["x.example.com"],"path_prefix":"/v1","query":{"a":["b"]},` +
				`"routes":[{"backend":"a","path_prefix":""},{"backend":"a","path_prefix":"/u"}]},{"routes":[{"backend":"a","deprecated":{},"path_prefix":"/"}]}],"handler":"rgate"}`,
		},
		"matchers of a group serve in it": {
			"@old header X-Old *\ngroup /v1 {\n@new header X-New *\nroute /u a {\nheader @old X-A b\nheader @new X-A c\n}\n}\n" + backends,
			`{` + inJSON + `"groups":[{"path_prefix":"/v1","routes":[{"backend":"a","handle":[{"handler":"subroute","routes":[` +
				`{"handle":[{"handler":"headers","response":{"set":{"X-A":["b"]}}}],"match":[{"header":{"X-Old":["*"]}}]},` +
				`{"handle":[{"handler":"headers","response":{"set":{"X-A":["c"]}}}],"match":[{"header":{"X-New":["*"]}}]}]}],"path_prefix":"/u"}]}],"handler":"rgate"}`,
		},
		"mutually exclusive directives stay together": {
			backends + "route /api a {\nhandle /api/x {\nrespond x\n}\nhandle {\nrespond y\n}\n}",
			`{` + inJSON + `"handler":"rgate","routes":[{"backend":"a","handle":[{"handler":"subroute","routes":[` +
				`{"group":"group2","handle":[{"handler":"subroute","routes":[{"handle":[{"body":"x","handler":"static_response"}]}]}],"match":[{"path":["/api/x"]}]},` +
				`{"group":"group2","handle":[{"handler":"subroute","routes":[{"handle":[{"body":"y","handler":"static_response"}]}]}]}]}],"path_prefix":"/api"}]}`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := adaptBlock(test.block)
			if err != nil || got != test.want {
				t.Errorf("got\n%s\nerror %v, want\n%s", got, err, test.want)
			}
		})
	}
}

func TestCaddyfileErrors(t *testing.T) {
	const backends = "backend a {\ndial 127.0.0.1:1\n}\n" // three lines
	for block, want := range map[string]string{
		"nmae edge":                            "unrecognized subdirective 'nmae' (did you mean \"name\"?): use name, docker, stats, operations, default_response, trust_identity, keep_fields, max_hops, stream_close_delay, legacy, backend, route, group, or an HTTP directive of Caddy or of rgate, at Caddyfile:3",
		"legacy handler_before_authentication": "unknown legacy behaviour \"handler_before_authentication\" (did you mean \"handlers_before_authentication\"?), at Caddyfile:3",
		"name":                                 "wrong argument count or unexpected line ending after 'name', at Caddyfile:3",
		"name a b":                             "wrong argument count or unexpected line ending after 'b', at Caddyfile:3",
		"name a\nname b":                       "'name' is given twice: remove this one or the one in line 3, at Caddyfile:4",
		"docker a b c":                         "unexpected argument 'c', at Caddyfile:3",
		"docker {\ncert /c\n}":                 "unrecognized subdirective 'cert': use host, cert_path, routed, drain, stop_signals, trust, at Caddyfile:4",
		"stats /a\nstats /b":                   "'stats' is given twice: remove this one or the one in line 3, at Caddyfile:4",
		"default_response":                     "default_response requires a body or a status, at Caddyfile:3",
		"default_response no here":             "invalid status 'here': must be a number: if this is part of the body, put the body in quotes, at Caddyfile:3",
		"default_response a b 404":             "default_response has too many arguments: put the body in quotes, at Caddyfile:3",
		"default_response a 99":                "invalid status_code 99: must be 200 to 599, at Caddyfile:3",
		"default_response {\nx\n}":             "unrecognized subdirective 'x': use body, status, at Caddyfile:4",
		"backend":                              "the name of the backend is required, such as 'backend payment { ... }', at Caddyfile:3",
		"backend a b":                          "wrong argument count or unexpected line ending after 'b', at Caddyfile:3",
		"backend a":                            `backend "a" requires match_labels or dial`,
		backends + backends:                    `duplicate backend "a": use another name for one of the two (the other is in line 3), at Caddyfile:6`,
		"backend a {\nmatch_label\n}": "unrecognized subdirective 'match_label' (did you mean \"match_labels\"?): use match_labels, dial, register, port, " +
			"network, scheme, health, host_port, include, lb_policy, upgrades, retries, retry_budget, timeouts, proxy, around, at Caddyfile:4",
		"backend a {\nmatch_labels\n}":                              "wrong argument count or unexpected line ending after 'match_labels', at Caddyfile:4",
		"backend a {\nmatch_labels a\n}":                            "label 'a' has no value: write a=value, at Caddyfile:4",
		"backend a {\nmatch_labels a=1\nmatch_labels a=2\n}":        "label 'a' is set twice: '1' and '2': remove one of the two, at Caddyfile:5",
		"backend a {\nport http\n}":                                 "port must be a whole number, not 'http', at Caddyfile:4",
		"backend a {\nhost_port yes\n}":                             "'host_port' does not accept arguments: remove them, at Caddyfile:4",
		"backend a {\nlb_policy\n}":                                 "wrong argument count or unexpected line ending after 'lb_policy', at Caddyfile:4",
		"backend a {\nlb_policy least_con\n}":                       `unknown selection policy 'least_con' (did you mean "least_conn"?): use one of `,
		"backend a {\nlb_policy first x\n}":                         "wrong argument count or unexpected line ending after 'x', at Caddyfile:4",
		"backend a {\nlb_policy first\nlb_policy first\n}":          "'lb_policy' is given twice: remove this one or the one in line 4, at Caddyfile:5",
		"backend a {\ntimeouts 3s\n}":                               "timeouts requires a block: write 'timeouts {', 'dial 3s' and '}' on separate lines, at Caddyfile:4",
		"backend a {\ntimeouts {\ndial 3\n}\n}":                     "dial must be a duration such as 500ms, 30s or 5m, not '3', at Caddyfile:5",
		"backend a {\ntimeouts {\ndail 3s\n}\n}":                    `unrecognized subdirective 'dail' (did you mean "dial"?): use dial, first_byte, total, at Caddyfile:5`,
		"backend a {\nproxy {\nflush_intervall -1\n}\n}":            "unrecognized subdirective flush_intervall, at Caddyfile:5",
		"backend a {\ndial 127.0.0.1:1\nproxy 127.0.0.1:2\n}":       "upstreams cannot be set in proxy: use match_labels or dial of the backend, at Caddyfile:5",
		"backend a {\naround x\n}":                                  "wrong argument count or unexpected line ending after 'x', at Caddyfile:4",
		"backend a {\naround {\nencod gzip\n}\n}":                   "unrecognized directive 'encod': use an HTTP directive of Caddy or of rgate, at Caddyfile:5",
		"backend a {\ndial 127.0.0.1:1 127.0.0.1\n}":                `invalid address "127.0.0.1": must be host:port with one port, at Caddyfile:4`,
		backends + "route /api":                                     "route requires a path prefix, and one backend or a backends block, such as 'route /api/payment payment', at Caddyfile:6",
		backends + "route /api b":                                   `unknown backend "b" (did you mean "a"?), at Caddyfile:6`,
		backends + "route api a":                                    `invalid path "api": must begin with a slash: use "/api", at Caddyfile:6`,
		backends + "route /api a {\nmethods GET\nmethods post\n}":   `invalid method "post": must be in upper case: use POST, at Caddyfile:8`,
		backends + "route /api a {\nmatch segmnt\n}":                `unknown match "segmnt" (did you mean "segment"?): use prefix or segment, at Caddyfile:7`,
		backends + "route /api a {\nstrip_perfix\n}":                `unrecognized subdirective 'strip_perfix' (did you mean "strip_prefix"?): use name, match, methods, hosts, headers, query, strip_prefix, timeouts, deprecated, backends, sticky_key, or an HTTP directive of Caddy or of rgate, at Caddyfile:7`,
		"backend a {\ndial 127.0.0.1:1\nretry_budget 2\n}":          "invalid ratio 2: must be 0 to 1, such as 0.2, at Caddyfile:5",
		"backend a {\ndial 127.0.0.1:1\nretry_budget 0.2 -1\n}":     "invalid min_per_second -1: must be 0 to 1000, at Caddyfile:5",
		"backend a {\nretry_budget {\nratoi 1\n}\n}":                `unrecognized subdirective 'ratoi' (did you mean "ratio"?): use ratio, min_per_second, at Caddyfile:5`,
		"backend a {\nretry_budget\nretry_budget\n}":                "'retry_budget' is given twice: remove this one or the one in line 4, at Caddyfile:5",
		backends + "route /api a {\ntimeouts {\ntotal -1s\n}\n}":    "invalid total: must not be negative: use a duration such as 1m, or 0s to disable the limit, at Caddyfile:8",
		backends + "route /api a {\ntimeouts {\ndial -1s\n}\n}":     "invalid dial: must not be negative: use a duration such as 3s, or 0s to disable the limit, at Caddyfile:8",
		backends + "route /a a {\ntimeouts {\nfirst_byte -1s\n}\n}": "invalid first_byte: must not be negative: use a duration such as 30s, or 0s to disable the limit, at Caddyfile:8",
		backends + "route /api a {\nredir\n}":                       "parsing caddyfile tokens for 'redir': wrong argument count or unexpected line ending after 'redir', at Caddyfile:7",
		backends + "route a":                                        "route requires a path prefix, and one backend or a backends block",
		backends + "route /a a a":                                   "route requires a path prefix, and one backend or a backends block",
		backends + "route /api a {\nheaders X-A\n}":                 "header field 'X-A' has no values: use 'X-A *' to match any value, or '!X-A' to match its absence, at Caddyfile:7",
		backends + "route /api a {\nheaders !X-A b\n}":              "a header field that must be absent cannot have values: use '!X-A' without values, or 'X-A' with values, at Caddyfile:7",
		backends + "route /api a {\nheaders !X-A\nheaders X-A b\n}": "header field 'X-A' cannot both be absent and have values: remove one of the two lines, at Caddyfile:8",
		backends + "route /api a {\nheaders\n}":                     "wrong argument count or unexpected line ending after 'headers', at Caddyfile:7",
		backends + "route /api a {\nheaders X:A b\n}":               `invalid header field name "X:A": use a name such as X-API-Version, at Caddyfile:7`,
		backends + "route /api a {\nquery a\n}":                     "query parameter 'a' has no value: use a=value, or a=* to match any value, at Caddyfile:7",
		backends + "route /api a {\ndeprecated 2026-12-31\n}":       "deprecated requires a block: write 'deprecated {', 'sunset 2026-12-31' and '}' on separate lines, at Caddyfile:7",
		backends + "route /api a {\ndeprecated {\nsunst x\n}\n}":    `unrecognized subdirective 'sunst' (did you mean "sunset"?): use since, sunset, link, at Caddyfile:8`,
		backends + "route /api a {\ndeprecated {\nsunset x\n}\n}":   `invalid date "x": must be a date such as 2026-12-31, or a time such as 2026-12-31T12:00:00Z, at Caddyfile:8`,
		backends + "route /api {\nbackends a 1\n}":                  "backends requires a block: add a line for each backend, such as 'payment 95', at Caddyfile:7",
		backends + "route /api {\nbackends {\n}\n}":                 "backends is empty: add a line for each backend, such as 'payment 95', at Caddyfile:7",
		backends + "route /api {\nbackends {\na\n}\n}":              "wrong argument count or unexpected line ending after 'a', at Caddyfile:8",
		backends + "route /api {\nbackends {\na x\n}\n}":            "a must be a whole number, not 'x', at Caddyfile:8",
		backends + "route /api {\nbackends {\na 1\nb 1\n}\n}":       `unknown backend "b" (did you mean "a"?), at Caddyfile:9`,
		backends + "route /api {\nbackends {\na -1\n}\n}":           "invalid weight -1: must be 0 to 1000000, at Caddyfile:8",
		backends + "route /api a {\nbackends {\na 1\n}\n}":          "backend and backends of route /api cannot be combined: remove one of them, at Caddyfile:7",
		backends + "route /api a {\nsticky_key x\n}":                `invalid sticky_key "x": must have a placeholder, such as {http.request.cookie.session}, at Caddyfile:7`,
		backends + "group /a /b {\nroute a\n}":                      "wrong argument count or unexpected line ending after '/b', at Caddyfile:6",
		backends + "group /a":                                       "the group has no routes: add a route or remove the group, at Caddyfile:6",
		backends + "group /a {\nrouet /b a\nroute a\n}":             `unrecognized subdirective 'rouet' (did you mean "route"?): use hosts, headers, query, deprecated, route, group, or an HTTP directive of Caddy or of rgate, at Caddyfile:7`,
		backends + "group /a {\nroute b a\n}":                       `invalid path "b": must begin with a slash: use "/b", at Caddyfile:7`,
		backends + "group /a {\ngroup b {\nroute a\n}\n}":           `invalid path "b": must begin with a slash: use "/b", at Caddyfile:7`,
		backends + "group {\nroute a\n}":                            "path_prefix is required: use / to match every path, at Caddyfile:7",
		backends + "route /u/:id a\ngroup /u {\nroute /:name a\n}":  "/u/:name matches the same paths as /u/:id, which is already routed to \"a\": remove one of the two routes, or distinguish them by match, hosts, headers, query or methods (the other is in line 6), at Caddyfile:8",
		backends + "route /api a\nroute /api a":                     "/api is already routed to \"a\": remove one of the two routes, or distinguish them by match, hosts, headers, query or methods (the other is in line 6), at Caddyfile:7",
	} {
		_, err := adaptBlock(block)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s\ngot  %v\nwant %s", block, err, want)
		}
	}
}

func TestCaddyfileTakesNoArguments(t *testing.T) {
	_, _, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(":8080 {\n\trgate /api x\n}\n"), nil)
	if want := "wrong argument count or unexpected line ending after 'x', at Caddyfile:2"; err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("got %v, want %s", err, want)
	}
}

// An error in a snippet includes the import chain.
func TestCaddyfileErrorsInSnippets(t *testing.T) {
	_, _, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(
		"(routes) {\n\troute /api {args[0]}\n}\n:8080 {\n\trgate {\n\t\timport routes b\n\t}\n}\n"), nil)
	if want := `unknown backend "b"`; err == nil || !strings.Contains(err.Error(), want) ||
		!strings.Contains(err.Error(), ", at Caddyfile:2 import chain ['Caddyfile:6 (import routes)']") {
		t.Errorf("got %v, want %s with its import chain", err, want)
	}
}

// The conflicting value of a problem may be in another file.
func TestCaddyfileErrorsNameTheOtherFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "routes.caddy")
	if err := os.WriteFile(file, []byte("# first\nroute /u/:id a\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := adaptBlock("backend a {\ndial 127.0.0.1:1\n}\nimport " + file + "\nroute /u/:name a")
	if want := "(the other is at " + file + ":2), at Caddyfile:7"; err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("got %v, want %s", err, want)
	}
}
