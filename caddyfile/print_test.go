package caddyfile

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"gopkg.in/yaml.v3"
)

func init() {
	httpcaddyfile.RegisterDirectiveOrder("rgate", httpcaddyfile.Before, "respond")
	httpcaddyfile.RegisterDirectiveOrder("rgate_stats", httpcaddyfile.Before, "handle")
}

// adaptCaddyfile adapts a Caddyfile, which must be formatted.
func adaptCaddyfile(t *testing.T, text string) string {
	t.Helper()
	result, warnings, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(text), map[string]any{"filename": "Caddyfile"})
	if err != nil {
		t.Fatalf("adapting %s: %v", text, err)
	}
	if len(warnings) > 0 {
		t.Fatalf("adapting %s: %v", text, warnings)
	}
	return string(result)
}

// sameJSON compares what two texts mean.
func sameJSON(t *testing.T, name, got, want string) {
	t.Helper()
	var a, b any
	if err := json.Unmarshal([]byte(got), &a); err != nil {
		t.Fatalf("%s: %v in %s", name, err, got)
	}
	if err := json.Unmarshal([]byte(want), &b); err != nil {
		t.Fatalf("%s: %v in %s", name, err, want)
	}
	if !reflect.DeepEqual(a, b) {
		t.Errorf("%s: got\n%s\nwant\n%s", name, got, want)
	}
}

// What cannot be printed, and why.
var unprintable = map[string]string{
	"good_handlers": "rgate.yaml:23: Print knows no Caddyfile for proxy: leave it out here, " +
		"and add its subdirectives of reverse_proxy to a 'proxy' block of the Caddyfile by hand",
	"good_listen_several": "rgate.yaml:1: a Caddyfile makes one server for each port, not one for :8080 and :9090: " +
		"use one port here, and add the others to the Caddyfile by hand",
}

func TestPrintedCaddyfilesMeanTheSame(t *testing.T) {
	eachGolden(t, "good_*", func(t *testing.T, path, yaml, want string) {
		printed, err := Print([]byte(yaml), "rgate.yaml")
		name := strings.TrimSuffix(strings.TrimPrefix(path, "testdata/"), ".rgatetest")
		if got := errorText(err); got != unprintable[name] {
			t.Fatalf("got error %q, want %q", got, unprintable[name])
		}
		if err == nil {
			sameJSON(t, string(printed), adaptCaddyfile(t, string(printed)), want)
		}
	})
}

func TestPrintReportsBadYAML(t *testing.T) {
	_, err := Print([]byte("rotes: []"), "conf/rgate.yaml")
	if want := `conf/rgate.yaml:1: unknown key "rotes" (did you mean "routes"?)`; errorText(err) != want {
		t.Errorf("got %q, want %q", errorText(err), want)
	}
}

func TestPrintIgnoresAnOverriddenPort(t *testing.T) {
	OverridePort(9999)
	t.Cleanup(func() { OverridePort(0) })
	printed, err := Print([]byte("listen: :80\ndefault_response: {body: x}\n"), "")
	if err != nil || !strings.HasPrefix(string(printed), ":80 {\n") {
		t.Errorf("got %s, error %v", printed, err)
	}
}

// The same gateway in all three syntaxes.
const (
	sameInYAML = `admin: off
access_log: true
name: edge
docker:
  - host: tcp://10.0.0.7:2376
    cert_path: /etc/rgate/certs
stats: {path: /figures, interval: 30s, sinks: [{sink: json_lines, filename: /var/log/rgate.jsonl, roll_keep: 3}]}
default_response: {body: "not # here", status_code: 403}
handle:
  - handler: headers
    response: {set: {X-Served-By: [rgate]}, deferred: true}
routes:
  - path_prefix: /api/payment
    name: pay
    match: segment
    methods: [GET, POST]
    hosts: [api.example.com, "*.example.org"]
    strip_prefix: true
    handle:
      - handler: subroute
        routes:
          - handle: [{handler: rgate_stats, path: /payment-figures, name: payment}]
          - match: [{path: [/api/payment/old*]}]
            handle: [{handler: static_response, status_code: 410}]
    backend: payment
  - path_prefix: /
    backend: legacy
backends:
  - name: payment
    match_labels: [app_name=payment, env=production]
    port: 8080
    network: front
    scheme: https
    health: any
    host_port: true
    lb_policy: {policy: header, field: X-User, fallback: {policy: least_conn}}
    retries: 0
    timeouts: {dial: 500ms, first_byte: 1m30s, total: 2h}
    proxy:
      flush_interval: -1ns
      transport: {protocol: http, tls: {insecure_skip_verify: true}}
    around:
      - {handler: encode, encodings: {gzip: {}}, prefer: [gzip]}
  - name: legacy
    dial: ["127.0.0.1:9001", "127.0.0.1:9002"]
`
	sameInCaddyfile = `{
	admin off
}

:8080 {
	log
	rgate {
		name edge
		docker tcp://10.0.0.7:2376 {
			cert_path /etc/rgate/certs
		}
		stats /figures {
			interval 30s
			sink json_lines /var/log/rgate.jsonl {
				roll_keep 3
			}
		}
		default_response "not # here" 403
		header >X-Served-By rgate
		@old path /api/payment/old*

		backend payment {
			match_labels app_name=payment
			match_labels env=production
			port 8080
			network front
			scheme https
			health any
			host_port
			lb_policy header X-User {
				fallback least_conn
			}
			retries 0
			timeouts {
				dial 500ms
				first_byte 1m30s
				total 2h
			}
			proxy {
				flush_interval -1
				transport http {
					tls_insecure_skip_verify
				}
			}
			around {
				encode gzip
			}
		}
		backend legacy {
			dial 127.0.0.1:9001 127.0.0.1:9002
		}

		route /api/payment payment {
			name pay
			match segment
			methods GET POST
			hosts api.example.com
			hosts *.example.org
			strip_prefix
			stats /payment-figures {
				name payment
			}
			respond @old 410
		}
		route / legacy
	}
}
`
	sameInJSON = `{"admin": {"disabled": true}, "apps": {"http": {"servers": {"srv0": {
	"listen": [":8080"],
	"logs": {},
	"routes": [{"handle": [{
		"handler": "rgate",
		"name": "edge",
		"docker": [{"host": "tcp://10.0.0.7:2376", "cert_path": "/etc/rgate/certs"}],
		"stats": {"path": "/figures", "interval": 30000000000,
			"sinks": [{"sink": "json_lines", "filename": "/var/log/rgate.jsonl", "roll_keep": 3}]},
		"default_response": {"body": "not # here", "status_code": 403},
		"handle": [{"handler": "headers", "response": {"deferred": true, "set": {"X-Served-By": ["rgate"]}}}],
		"routes": [
			{
				"path_prefix": "/api/payment", "name": "pay", "match": "segment", "methods": ["GET", "POST"],
				"hosts": ["api.example.com", "*.example.org"], "strip_prefix": true, "backend": "payment",
				"handle": [
					{"handler": "subroute", "routes": [
						{"handle": [{"handler": "rgate_stats", "path": "/payment-figures", "name": "payment"}]},
						{"match": [{"path": ["/api/payment/old*"]}], "handle": [{"handler": "static_response", "status_code": 410}]}
					]}
				]
			},
			{"path_prefix": "/", "backend": "legacy"}
		],
		"backends": [
			{
				"name": "payment", "match_labels": {"app_name": "payment", "env": "production"}, "port": 8080,
				"network": "front", "scheme": "https", "health": "any", "host_port": true,
				"lb_policy": {"policy": "header", "field": "X-User", "fallback": {"policy": "least_conn"}},
				"retries": 0, "timeouts": {"dial": 500000000, "first_byte": 90000000000, "total": 7200000000000},
				"proxy": {"flush_interval": -1, "transport": {"protocol": "http", "tls": {"insecure_skip_verify": true}}},
				"around": [{"handler": "encode", "encodings": {"gzip": {}}, "prefer": ["gzip"]}]
			},
			{"name": "legacy", "dial": ["127.0.0.1:9001", "127.0.0.1:9002"]}
		]
	}]}]
}}}}}`
)

func TestThreeSyntaxesMeanTheSame(t *testing.T) {
	fromYAML, err := adapt(sameInYAML)
	if err != nil {
		t.Fatal(err)
	}
	sameJSON(t, "YAML", string(fromYAML), sameInJSON)
	sameJSON(t, "Caddyfile", adaptCaddyfile(t, sameInCaddyfile), sameInJSON)
	decodeGateway(t, []byte(sameInJSON))
}

// Every option of the gateway is in the gateway above, so that a new one cannot
// be forgotten in one of the syntaxes.
func TestThreeSyntaxesHaveEveryOption(t *testing.T) {
	g := decodeGateway(t, []byte(sameInJSON))
	unset := unsetFields(reflect.ValueOf(g).Elem(), "gateway")
	// A page that is off has no path, and static addresses exclude labels.
	allowed := []string{"gateway.stats.disabled"}
	if !reflect.DeepEqual(unset, allowed) {
		t.Errorf("options that the test does not set: got %v, want %v", unset, allowed)
	}
}

// unsetFields names the fields with a JSON key that are zero; in a list, those
// that are zero in all elements.
func unsetFields(v reflect.Value, path string) []string {
	v = reflect.Indirect(v)
	switch {
	case !v.IsValid():
		return []string{path}
	case v.Kind() == reflect.Slice && v.Type().Elem().Kind() != reflect.Uint8 && v.Type().Elem().Kind() != reflect.Slice && v.Len() > 0:
		counts := make(map[string]int)
		var all []string
		for i := range v.Len() {
			for _, name := range unsetFields(v.Index(i), path+"[]") {
				if counts[name]++; counts[name] == v.Len() {
					all = append(all, name)
				}
			}
		}
		return all
	case v.Kind() == reflect.Struct:
		var unset []string
		for i := range v.NumField() {
			f := v.Type().Field(i)
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			switch {
			case f.Anonymous && f.IsExported():
				unset = append(unset, unsetFields(v.Field(i), path)...)
			case name == "" || name == "-":
			case v.Field(i).IsZero():
				unset = append(unset, path+"."+name)
			default:
				unset = append(unset, unsetFields(v.Field(i), path+"."+name)...)
			}
		}
		return unset
	}
	return nil
}

func TestPrint(t *testing.T) {
	for name, test := range map[string]struct{ yaml, want string }{
		"a small gateway": {
			yaml: "routes: [{path_prefix: /api, backend: api}]\nbackends: [{name: api, match_labels: {b: '2', a: x y}}]\n",
			want: ":8080 {\n\trgate {\n\t\tbackend api {\n\t\t\tmatch_labels \"a=x y\" b=2\n\t\t}\n\t\troute /api api\n\t}\n}\n",
		},
		"hosts with dashes and placeholders": {
			yaml: "listen: ['my-host:80', '{env.HOST}:80']\n",
			want: ":80 {\n\tbind my-host {env.HOST}\n\trgate {\n\t}\n}\n",
		},
		"own handlers": {
			yaml: "handle: [{handler: rgate_stats, path: /figures, interval: 1h}]\n",
			want: ":8080 {\n\trgate {\n\t\trgate_stats {\n\t\t\tinterval 1h\n\t\t\tpath /figures\n\t\t}\n\t}\n}\n",
		},
		"an empty block": {
			yaml: "backends: [{name: a, dial: ['127.0.0.1:1'], timeouts: {}}]\n",
			want: ":8080 {\n\trgate {\n\t\tbackend a {\n\t\t\tdial 127.0.0.1:1\n\t\t\ttimeouts {\n\t\t\t}\n\t\t}\n\t}\n}\n",
		},
		"a statistics page that is off": {
			yaml: "stats: {disabled: true, path: /x, interval: 90s}\n",
			want: ":8080 {\n\trgate {\n\t\tstats off {\n\t\t\tpath /x\n\t\t\tinterval 1m30s\n\t\t}\n\t}\n}\n",
		},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := Print([]byte(test.yaml), "")
			if err != nil || string(got) != test.want {
				t.Errorf("got\n%s\nerror %v, want\n%s", got, err, test.want)
			}
		})
	}
}

func TestPrintRefuses(t *testing.T) {
	const backend = "backends:\n  - name: a\n    dial: ['127.0.0.1:1']\n"
	for yaml, want := range map[string]string{
		"\ndefault_response: {body: 'see {path}'}\n":                                         `2: a Caddyfile would expand the placeholders in "see {path}" to "see {http.request.uri.path}": write them like that here too`,
		"\nname: '{$NAME}'\n":                                                                `2: a Caddyfile would replace the {$ in "{$NAME}" by an environment variable: write {env.NAME}`,
		"\nlisten: tcp4/:8080\n":                                                             `2: Print knows no Caddyfile for the address "tcp4/:8080": use host:port here, and change the Caddyfile by hand`,
		"\nlisten: ':8080-8090'\n":                                                           `2: Print knows no Caddyfile for the address ":8080-8090": use host:port here, and change the Caddyfile by hand`,
		"default_response:\n  body: \"a`\\\\\\\"\\r\"\n":                                     "2: a Caddyfile has no quotes for \"a`\\\\\\\"\\r\": remove the backticks or the carriage returns",
		"handle:\n  - handler: headers\n":                                                    `2: Print knows no Caddyfile for the handler headers: leave it out here, and add its directive to the Caddyfile by hand`,
		backend + "    around:\n      - handler: encode\n":                                   `5: Print knows no Caddyfile for the handler encode: leave it out here, and add its directive to the Caddyfile by hand`,
		backend + "    lb_policy:\n      policy: cookie\n      max_age: 0s\n":                `6: this cannot be said in a Caddyfile (`,
		backend + "    lb_policy:\n      policy: random_choose\n":                            `4: this cannot be said in a Caddyfile (`,
		"stats:\n  sinks:\n    - sink: json_lines\n      filename: x\n      roll_keep: -1\n": `5: this cannot be said in a Caddyfile (`,
	} {
		_, err := Print([]byte(yaml), "")
		if got := errorText(err); !strings.HasPrefix(got, "rgate.yaml:"+want) {
			t.Errorf("%s\ngot  %s\nwant rgate.yaml:%s", yaml, got, want)
		}
	}
}

func TestQuote(t *testing.T) {
	for text, want := range map[string]string{
		"":           `""`,
		"plain":      "plain",
		"{env.X}":    "{env.X}",
		"a b":        `"a b"`,
		"#":          `"#"`,
		"{":          `"{"`,
		`"`:          "`\"`",
		`\`:          "`\\`",
		"`":          "\"`\"",
		"`\"":        "\"`\\\"\"",
		"`\\\\":      "\"`\\\\\"",
		"`\\":        "<<END\n`\\\nEND",
		"`END\\":     "<<END_\n`END\\\nEND_",
		"\u00a0":     "\"\u00a0\"",
		"a\nb":       "\"a\nb\"",
		"<<END":      `"<<END"`,
		"import":     "import",
		"a\\\"b`":    "<<END\na\\\"b`\nEND",
		"line\r\n":   "\"line\r\n\"",
		"back\\lash": `"back\lash"`,
	} {
		got, err := quote(text)
		if err != nil || got != want {
			t.Errorf("%q: got %s, error %v, want %s", text, got, err, want)
		}
		tokens, err := caddyfile.Tokenize([]byte("x "+got+" y\n"), "")
		if err != nil || len(tokens) != 3 || tokens[1].Text != text {
			t.Errorf("%q: as %s it is read as %v, error %v", text, got, tokens, err)
		}
	}
}

// A gateway is printed whatever is in its texts, unless it has braces, which may
// be placeholders, or what a Caddyfile has no quotes for.
func FuzzPrint(f *testing.F) {
	for _, text := range []string{"", "x", "a b", "#", "<<END", "\"", "`", "`\"\\", "\\", "\n", "\r\n", "a\u00a0b", "import", "@x", "*", "END", "\\\n", "{", "}", "200", "import x", "&(y)"} {
		f.Add(text, "text", text)
		f.Add("body", text, "x"+text)
	}
	f.Fuzz(func(t *testing.T, body, label, name string) {
		config, err := yaml.Marshal(map[string]any{
			"name":             name,
			"default_response": map[string]any{"body": body, "status_code": 404},
			"routes":           []any{map[string]any{"path_prefix": "/", "name": name, "backend": "a"}},
			"backends":         []any{map[string]any{"name": "a", "match_labels": map[string]any{"label": label}, "network": name}},
		})
		if err != nil {
			t.Skip()
		}
		want, err := adapt(string(config))
		if err != nil {
			t.Skip()
		}
		printed, err := Print(config, "")
		all := body + "\x00" + label + "\x00" + name
		if err != nil {
			if strings.ContainsAny(all, "{}") || strings.Contains(all, "`") && strings.Contains(all, "\r") {
				return
			}
			t.Fatalf("%s cannot be printed: %v", config, err)
		}
		got, _, err := caddyconfig.GetAdapter("caddyfile").Adapt(printed, nil)
		if err != nil {
			t.Fatalf("%s: %v", printed, err)
		}
		sameJSON(t, string(printed), string(got), string(want))
	})
}
