package stats

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
)

func TestStatsInACaddyfile(t *testing.T) {
	for _, tc := range []struct{ input, json, fails string }{
		{input: `stats`, json: `{}`},
		{input: `stats /figures`, json: `{"path":"/figures"}`},
		{input: `stats off`, json: `{"disabled":true}`},
		{input: "stats {\n path /figures\n interval 1m30s\n}", json: `{"path":"/figures","interval":90000000000}`},
		{
			input: "stats off {\n sink json_lines /a\n sink json_lines {\n filename /b\n roll_size_mb 5\n roll_keep 3\n }\n interval 5s\n}",
			json: `{"disabled":true,"sinks":[{"filename":"/a","sink":"json_lines"},` +
				`{"filename":"/b","roll_keep":3,"roll_size_mb":5,"sink":"json_lines"}],"interval":5000000000}`,
		},
		{input: `stats figures`, fails: `invalid path 'figures': must begin with a slash`},
		{input: `stats /figures/*`, fails: "must not contain '*'"},
		{input: `stats /a /b`, fails: "wrong argument count"},
		{input: "stats /a {\n path /b\n}", fails: "path is set twice"},
		{input: "stats {\n path\n}", fails: "wrong argument count"},
		{input: "stats {\n path /a /b\n}", fails: "wrong argument count"},
		{input: "stats {\n interval\n}", fails: "wrong argument count"},
		{input: "stats {\n interval often\n}", fails: "such as 30s"},
		{input: "stats {\n interval 30s\n interval 1m\n}", fails: "interval is set twice: '30s' and '1m': remove one of the two"},
		{input: "stats {\n name x\n}", fails: "unrecognized subdirective 'name'"},
		{input: "stats {\n sink\n}", fails: "wrong argument count"},
		{input: "stats {\n sink nowhere\n}", fails: "rgate.stats.sinks.nowhere"},
		{input: "stats {\n sink json_lines a b\n}", fails: "wrong argument count"},
		{input: "stats {\n sink json_lines {\n roll_keep none\n }\n}", fails: "invalid number 'none'"},
		{input: "stats {\n sink json_lines {\n roll_size_mb\n }\n}", fails: "wrong argument count"},
		{input: "stats {\n sink json_lines {\n colour red\n }\n}", fails: "unrecognized subdirective 'colour'"},
	} {
		var c Config
		err := c.UnmarshalCaddyfile(caddyfile.NewTestDispenser(tc.input))
		if tc.fails != "" {
			if err == nil || !strings.Contains(err.Error(), tc.fails) || !strings.Contains(err.Error(), "Testfile:") {
				t.Errorf("%s:\ngot  %v\nwant %s", tc.input, err, tc.fails)
			}
			continue
		}
		got, _ := json.Marshal(c)
		if err != nil || string(got) != tc.json {
			t.Errorf("%s:\ngot  %s, %v\nwant %s", tc.input, got, err, tc.json)
		}
	}
}

func TestHandlerInACaddyfile(t *testing.T) {
	for directive, want := range map[string]string{
		"rgate_stats":                  `{"handle":[{"handler":"rgate_stats"}]}`,
		"rgate_stats off":              `{"handle":[{"disabled":true,"handler":"rgate_stats"}]}`,
		"rgate_stats /figures":         `{"handle":[{"handler":"rgate_stats","path":"/figures"}]}`,
		"rgate_stats * /figures":       `{"handle":[{"handler":"rgate_stats","path":"/figures"}]}`,
		"rgate_stats @api /figures":    `{"match":[{"path":["/api/*"]}],"handle":[{"handler":"rgate_stats","path":"/figures"}]}`,
		"rgate_stats @api":             `{"match":[{"path":["/api/*"]}],"handle":[{"handler":"rgate_stats"}]}`,
		"rgate_stats {\nname n\n}":     `{"handle":[{"handler":"rgate_stats","name":"n"}]}`,
		"rgate_stats /f {\nroute r\n}": `{"handle":[{"handler":"rgate_stats","path":"/f","route":"r"}]}`,
	} {
		got, err := adapt(directive)
		if err != nil || !strings.Contains(got, `"routes":[`+want+`]`) {
			t.Errorf("%s:\ngot  %s, %v\nwant %s", directive, got, err, want)
		}
	}
	for directive, says := range map[string]string{
		"rgate_stats /api/*":             "put a named matcher before it",
		"rgate_stats @unknown":           "@unknown",
		"rgate_stats {\nname\n}":         "wrong argument count",
		"rgate_stats {\nwindow 5m\n}":    "unrecognized subdirective 'window'",
		"rgate_stats {\nroute a b\n}":    "wrong argument count",
		"rgate_stats /a {\npath /a\n}":   "path is set twice",
		"rgate_stats * /a {\nroute\n}":   "wrong argument count",
		"rgate_stats {\ninterval\n}":     "wrong argument count",
		"rgate_stats {\nsink nowhere\n}": "rgate.stats.sinks.nowhere",
	} {
		if got, err := adapt(directive); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s:\ngot  %s, %v\nwant %s", directive, got, err, says)
		}
	}
}

func adapt(directive string) (string, error) {
	out, _, err := caddyconfig.GetAdapter("caddyfile").Adapt(
		[]byte("{\norder rgate_stats first\n}\n:8080 {\n@api path /api/*\n"+directive+"\n}"), nil)
	return string(out), err
}
