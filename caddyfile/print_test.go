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
	httpcaddyfile.RegisterDirectiveOrder("rgate_jwt", httpcaddyfile.Before, "basic_auth")
	httpcaddyfile.RegisterDirectiveOrder("rgate_api_key", httpcaddyfile.Before, "basic_auth")
}

// adaptCaddyfile adapts a Caddyfile. It fails the test if the Caddyfile is not
// formatted.
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

// sameJSON fails the test if two JSON texts differ in more than formatting.
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

// Configurations that Print rejects, and the errors.
var unprintable = map[string]string{
	"good_handlers": "rgate.yaml:23: printing does not support proxy: remove it here, " +
		"and add its subdirectives of reverse_proxy to a 'proxy' block of the Caddyfile by hand",
	"good_listen_several": "rgate.yaml:1: a Caddyfile has a separate server for each port, not one server for :8080 and :9090: " +
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

// defaultGlobals are the global options of a file without options of the server.
const defaultGlobals = "{\n\tgrace_period 30s\n}\n\n"

func TestPrintIgnoresAnOverriddenPort(t *testing.T) {
	OverridePort(9999)
	t.Cleanup(func() { OverridePort(0) })
	printed, err := Print([]byte("listen: :80\ndefault_response: {body: x}\n"), "")
	if err != nil || !strings.HasPrefix(string(printed), defaultGlobals+":80 {\n") {
		t.Errorf("got %s, error %v", printed, err)
	}
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
			if err != nil || string(got) != defaultGlobals+test.want {
				t.Errorf("got\n%s\nerror %v, want\n%s", got, err, test.want)
			}
		})
	}
}

func TestPrintRefuses(t *testing.T) {
	const backend = "backends:\n  - name: a\n    dial: ['127.0.0.1:1']\n"
	for yaml, want := range map[string]string{
		"\ndefault_response: {body: 'see {path}'}\n":                                         `2: a Caddyfile would expand the placeholders in "see {path}" to "see {http.request.uri.path}": use the expanded form here`,
		"\nname: '{$NAME}'\n":                                                                `2: a Caddyfile would replace the {$ in "{$NAME}" by an environment variable: write {env.NAME}`,
		"\nlisten: tcp4/:8080\n":                                                             `2: printing does not support the address "tcp4/:8080": use host:port here, and change the Caddyfile by hand`,
		"\nlisten: ':8080-8090'\n":                                                           `2: printing does not support the address ":8080-8090": use host:port here, and change the Caddyfile by hand`,
		"default_response:\n  body: \"a`\\\\\\\"\\r\"\n":                                     "2: \"a`\\\\\\\"\\r\" cannot be quoted in a Caddyfile: remove the backticks or the carriage returns",
		"handle:\n  - handler: headers\n":                                                    `2: printing does not support the handler headers: remove it here, and add its directive to the Caddyfile by hand`,
		backend + "    around:\n      - handler: encode\n":                                   `5: printing does not support the handler encode: remove it here, and add its directive to the Caddyfile by hand`,
		backend + "    lb_policy:\n      policy: cookie\n      max_age: 0s\n":                `6: this is not supported in a Caddyfile (`,
		backend + "    lb_policy:\n      policy: random_choose\n":                            `4: this is not supported in a Caddyfile (`,
		"stats:\n  sinks:\n    - sink: json_lines\n      filename: x\n      roll_keep: -1\n": `5: this is not supported in a Caddyfile (`,
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

// Print supports any strings in a gateway, except strings with braces, which may be
// placeholders, and strings that cannot be quoted in a Caddyfile.
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
			"groups": []any{map[string]any{
				"path_prefix": "/:x", "headers": map[string]any{"X-Body": []any{body, label}, "X-No": nil}, "query": map[string]any{"label": label},
				"routes": []any{map[string]any{"path_prefix": "/*", "sticky_key": "{http.rgate.param.x}" + name, "backends": []any{map[string]any{"name": "a", "weight": 1}}}},
			}},
			"backends": []any{map[string]any{"name": "a", "match_labels": map[string]any{"label": label}, "network": name}},
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
