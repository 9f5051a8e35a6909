package caddyfile

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	_ "github.com/caddyserver/caddy/v2/modules/standard"

	"github.com/rgate/rgate/gateway"
)

var update = flag.Bool("update", false, "write what the adapter says into testdata")

const dashes = "----------\n"

// eachGolden runs a test for each file of testdata that matches pattern. A file
// contains YAML, a line of dashes, and the expected output.
func eachGolden(t *testing.T, pattern string, test func(t *testing.T, path, yaml, want string)) {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join("testdata", pattern+".rgatetest"))
	if err != nil || len(paths) == 0 {
		t.Fatalf("no golden files match %s (%v)", pattern, err)
	}
	for _, path := range paths {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".rgatetest"), func(t *testing.T) {
			content, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			at := bytes.LastIndex(content, []byte(dashes))
			if at < 0 {
				t.Fatal("no line of dashes")
			}
			test(t, path, string(content[:at]), string(content[at+len(dashes):]))
		})
	}
}

func adapt(yaml string) ([]byte, error) {
	result, _, err := caddyconfig.GetAdapter("rgate").Adapt([]byte(yaml), map[string]any{"filename": "rgate.yaml"})
	return result, err
}

func TestAdapt(t *testing.T) {
	eachGolden(t, "*", func(t *testing.T, path, yaml, want string) {
		result, err := adapt(yaml)
		if shouldFail := strings.HasPrefix(filepath.Base(path), "bad_"); shouldFail != (err != nil) {
			t.Fatalf("should fail: %t, but got %s, error %v", shouldFail, result, err)
		}
		var got bytes.Buffer
		if err != nil {
			got.WriteString(err.Error())
		} else if err := json.Indent(&got, result, "", "  "); err != nil {
			t.Fatal(err)
		}
		got.WriteString("\n")
		if *update {
			if err := os.WriteFile(path, []byte(yaml+dashes+got.String()), 0o644); err != nil {
				t.Fatal(err)
			}
		} else if got.String() != want {
			t.Errorf("got\n%swant\n%s", got.String(), want)
		}
	})
}

// TestAdaptedGatewaysDecode checks that Caddy, which rejects unknown keys, can decode
// every adapted gateway.
func TestAdaptedGatewaysDecode(t *testing.T) {
	eachGolden(t, "good_*", func(t *testing.T, _, yaml, _ string) {
		result, err := adapt(yaml)
		if err != nil {
			t.Fatal(err)
		}
		decodeGateway(t, result)
	})
}

func decodeGateway(t *testing.T, config []byte) *gateway.Gateway {
	t.Helper()
	var shape struct {
		Admin   json.RawMessage `json:"admin"`
		Logging json.RawMessage `json:"logging"`
		Apps    struct {
			HTTP struct {
				GracePeriod   caddy.Duration `json:"grace_period"`
				ShutdownDelay caddy.Duration `json:"shutdown_delay"`

				Servers map[string]struct {
					Listen []string
					Logs   json.RawMessage
					Routes []struct{ Handle []map[string]json.RawMessage }
				}
			}
		}
	}
	if err := caddy.StrictUnmarshalJSON(config, &shape); err != nil {
		t.Fatalf("decoding %s: %v", config, err)
	}
	handler := shape.Apps.HTTP.Servers["srv0"].Routes[0].Handle[0]
	if name := string(handler["handler"]); name != `"rgate"` {
		t.Fatalf("the handler is %s", name)
	}
	delete(handler, "handler")
	encoded, err := json.Marshal(handler)
	if err != nil {
		t.Fatal(err)
	}
	g := new(gateway.Gateway)
	if err := caddy.StrictUnmarshalJSON(encoded, g); err != nil {
		t.Fatalf("decoding the gateway %s: %v", encoded, err)
	}
	return g
}

// TestAdaptEncodings tests encodings that are hard to read in a golden file.
func TestAdaptEncodings(t *testing.T) {
	const good = "default_response: {body: ok}\n"
	for name, test := range map[string]struct{ yaml, err string }{
		"byte order mark":   {yaml: "\ufeff" + good},
		"Windows lines":     {yaml: strings.ReplaceAll(good, "\n", "\r\n")},
		"document marks":    {yaml: "---\n" + good + "...\n"},
		"no last line feed": {yaml: strings.TrimSpace(good)},
		"Latin-1":           {"# fine\ndefault_response: {body: \"Gr\xfc\xdfe\"}\n", "rgate.yaml:2: the file is not UTF-8 text: save it as UTF-8"},
		"UTF-16":            {"\xff\xfea\x00:\x00", "rgate.yaml:1: the file is not UTF-8 text: save it as UTF-8"},
		"control character": {"# fine\ndefault_response: {body: \"\x01\"}\n", "rgate.yaml:2: a control character is not allowed: remove it, or write it as an escape in double quotes"},
		"tab in a block":    {"default_response:\n  body: x\n\tstatus_code: 1\n", "rgate.yaml:3: the indentation contains a tab: use spaces"},
		"aliases of aliases": {
			"handle:\n  - &a {handler: vars, x: [1, 2, 3, 4, 5, 6, 7, 8, 9]}\n" + billionLaughs(),
			"rgate.yaml:2: aliases expand to more than 100000 values: replace some aliases by their values",
		},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := adapt(test.yaml)
			if got := errorText(err); got != test.err {
				t.Errorf("got %q, want %q", got, test.err)
			}
		})
	}
}

func billionLaughs() string {
	var b strings.Builder
	for _, c := range "bcdefgh" {
		before := "*" + string(c-1)
		b.WriteString("  - &" + string(c) + " {handler: vars, x: [" + strings.Repeat(before+", ", 9) + before + "]}\n")
	}
	return b.String()
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func TestErrorsNameTheFileAsGiven(t *testing.T) {
	for filename, want := range map[string]string{
		"":                "rgate.yaml",
		"-":               "stdin",
		"conf/prod.yaml":  "conf/prod.yaml",
		"/etc/rgate.yaml": "/etc/rgate.yaml",
	} {
		_, _, err := Adapter{}.Adapt([]byte("x: y"), map[string]any{"filename": filename})
		var located *Error
		if !errors.As(err, &located) || located.File != want || located.Line != 1 {
			t.Errorf("%q: got %v, want an *Error in line 1 of %s", filename, err, want)
		}
	}
	if _, _, err := (Adapter{}).Adapt(nil, nil); err == nil || !strings.HasPrefix(err.Error(), "rgate.yaml:1: ") {
		t.Errorf("without options: got %v", err)
	}
}

func TestOverridePort(t *testing.T) {
	t.Cleanup(func() { OverridePort(0) })
	listen := func(yaml string) string {
		result, err := adapt("default_response: {body: ok}\n" + yaml)
		if err != nil {
			t.Fatal(err)
		}
		_, after, _ := strings.Cut(string(result), `"listen":`)
		before, _, _ := strings.Cut(after, `"]`)
		return before + `"]`
	}
	OverridePort(9999)
	for yaml, want := range map[string]string{
		"":                         `[":9999"]`,
		"listen: 127.0.0.1:80":     `["127.0.0.1:9999"]`,
		"listen: '[::1]:80'":       `["[::1]:9999"]`,
		"listen: tcp4/:80":         `["tcp4/:9999"]`,
		"listen: :8000-8005":       `[":9999"]`,
		"listen: [':80', ':8080']": `[":9999"]`,
		"listen: [127.0.0.1:80, 127.0.0.1:81, 10.0.0.1:80]": `["127.0.0.1:9999","10.0.0.1:9999"]`,
		"listen: unix//run/rgate.sock":                      `["unix//run/rgate.sock",":9999"]`,
		"listen: [unix//run/rgate.sock, ':80']":             `["unix//run/rgate.sock",":9999"]`,
		"listen: '{env.HOST}:80'":                           `["{env.HOST}:9999"]`,
	} {
		if got := listen(yaml); got != want {
			t.Errorf("%s: got %s, want %s", yaml, got, want)
		}
	}
	OverridePort(0)
	if got := listen("listen: :80"); got != `[":80"]` {
		t.Errorf("after the override ended: got %s", got)
	}
}

func TestOverrideNetwork(t *testing.T) {
	t.Cleanup(func() { OverrideNetwork("") })
	adapt := func() string {
		t.Helper()
		config, _, err := Adapter{}.Adapt([]byte(`listen: [":8080", "tcp/127.0.0.1:8081", "[::1]:8082-8083", "unix//run/rgate.sock", "tcp4/:8084"]`), nil)
		if err != nil {
			t.Fatal(err)
		}
		return string(config)
	}
	plain := adapt()
	OverrideNetwork("lasting")
	want := `"listen":["lasting/:8080","lasting/127.0.0.1:8081","lasting/[::1]:8082-8083","unix//run/rgate.sock","tcp4/:8084"]`
	if got := adapt(); !strings.Contains(got, want) {
		t.Errorf("got %s, want %s in it", got, want)
	}
	OverrideNetwork("")
	if got := adapt(); got != plain {
		t.Errorf("after the override has ended, got %s, want %s", got, plain)
	}
}
