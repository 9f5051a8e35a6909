package integration

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	_ "github.com/caddyserver/caddy/v2/modules/standard"

	_ "github.com/rgate/rgate"
	"github.com/rgate/rgate/dockerupstreams"
	"github.com/rgate/rgate/stats"
)

// TestDocumentation runs all snippets of all pages.
func TestDocumentation(t *testing.T) {
	t.Setenv("STAGE", "production") // for the placeholder {env.STAGE}
	t.Setenv("TRAEFIK_PASSWORD", "secret")
	for _, page := range pages(t) {
		t.Run(pageName(page), func(t *testing.T) {
			snippets := snippetsOf(t, page)
			groups := make(map[string][]*snippet)
			for _, s := range snippets {
				if name := s.words["same"]; name != "" {
					groups[name] = append(groups[name], s)
				}
				if err := runSnippet(t, s, snippets); err != nil {
					t.Errorf("%s: %v", s, err)
				}
			}
			for name, group := range groups {
				if err := meanTheSame(group); err != nil {
					t.Errorf("%s: the snippets with same=%s: %v", group[0].page, name, err)
				}
			}
		})
	}
}

// runSnippet tests a snippet according to its language and options. others are the page's
// snippets, which commands may read as files.
func runSnippet(t *testing.T, s *snippet, others []*snippet) error {
	switch s.lang {
	case "yaml", "caddyfile", "json":
		if s.has("is") {
			return decodeShownResponse(s)
		}
		return tryConfig(s)
	case "sh":
		switch {
		case testing.Short():
			return nil // commands require the binary
		case s.has("run"):
			return runCommands(t, s, others)
		case s.has("commands"):
			return checkCommands(t, s)
		}
		return errors.New("shell commands must be marked as run or commands")
	case "text":
		if s.words["is"] == "figure" {
			return nil
		}
		return errors.New("a text block must follow one that fails or is run, or be a figure")
	}
	return fmt.Errorf("unknown language %q: use yaml, caddyfile, json, sh or text", s.lang)
}

// tryConfig adapts and provisions a configuration.
func tryConfig(s *snippet) error {
	config, err := adaptSnippet(s)
	if s.has("fails") {
		switch {
		case err == nil:
			return errors.New("it should fail and does not")
		case s.output == nil:
			return fmt.Errorf("it must be followed by a text block with the error, which is:\n%w", err)
		case err.Error() != strings.TrimSpace(s.output.text):
			return fmt.Errorf("got the error\n%w\nwant\n%s", err, s.output.text)
		}
		return nil
	}
	if err != nil || s.has("adapts") {
		return err
	}
	return provision(config)
}

// provision provisions a configuration with Caddy and cleans it up.
func provision(config []byte) error {
	cfg := new(caddy.Config)
	if err := caddy.StrictUnmarshalJSON(config, cfg); err != nil {
		return fmt.Errorf("decoding: %w", err)
	}
	if cfg.Logging == nil { // discard Caddy's logs
		cfg.Logging = &caddy.Logging{Logs: map[string]*caddy.CustomLog{
			caddy.DefaultLoggerName: {BaseLog: caddy.BaseLog{WriterRaw: json.RawMessage(`{"output": "discard"}`)}},
		}}
	}
	return caddy.Validate(cfg)
}

// adaptSnippet converts a snippet to Caddy's JSON.
func adaptSnippet(s *snippet) ([]byte, error) {
	text, err := wrapSnippet(s)
	if err != nil || s.lang == "json" {
		return text, err
	}
	adapter, filename := "rgate", "rgate.yaml"
	if s.lang == "caddyfile" {
		adapter, filename = "caddyfile", "Caddyfile"
	}
	config, warnings, err := caddyconfig.GetAdapter(adapter).Adapt(text, map[string]any{"filename": filename})
	for _, warning := range warnings {
		if !s.has("in") && err == nil {
			err = errors.New(warning.String()) // such as a warning about the format
		}
	}
	return config, err
}

// snippetFrames holds the configuration around a partial snippet, which replaces %s.
var snippetFrames = map[string]map[string]string{
	"caddyfile": {
		"site":    ":8080 {\n%s}\n",
		"gateway": ":8080 {\nrgate {\n%s}\n}\n",
		"route":   ":8080 {\nrgate {\nbackend example {\nmatch_labels app=example\n}\nroute / example {\n%s}\n}\n}\n",
		"backend": ":8080 {\nrgate {\nbackend example {\n%s}\nroute / example\n}\n}\n",
	},
	"yaml": {
		"gateway": "%s",
		"route":   "backends: [{name: example, match_labels: {app: example}}]\nroutes:\n- path_prefix: /\n  backend: example\n%s",
		"backend": "routes: [{path_prefix: /, backend: example}]\nbackends:\n- name: example\n%s",
	},
	"json": {
		"site":    `{"apps": {"http": {"servers": {"srv0": {"listen": [":8080"], "routes": [{"handle": [%s]}]}}}}}`,
		"gateway": `{"handler": "rgate", %s}`,
		"route":   `{"handler": "rgate", "backends": [{"name": "example", "match_labels": {"app": "example"}}], "routes": [{"path_prefix": "/", "backend": "example", %s}]}`,
		"backend": `{"handler": "rgate", "routes": [{"path_prefix": "/", "backend": "example"}], "backends": [{"name": "example", %s}]}`,
	},
}

var saysWhere = regexp.MustCompile(`(?m)^\s*"?(match_labels|dial)\b`)

// wrapSnippet completes a snippet to a whole configuration. A backend without
// match_labels or dial matches the label app=example.
func wrapSnippet(s *snippet) ([]byte, error) {
	in := s.words["in"]
	if in == "" {
		return []byte(s.text), nil
	}
	frame, ok := snippetFrames[s.lang][in]
	if !ok {
		return nil, fmt.Errorf("%s has no frame in a %s", s.lang, in)
	}
	text, bare := s.text, in == "backend" && !saysWhere.MatchString(s.text)
	switch s.lang {
	case "caddyfile":
		if bare {
			text += "match_labels app=example\n"
		}
	case "yaml":
		if bare {
			text += "match_labels: [app=example]\n"
		}
		if in != "gateway" {
			text = "  " + strings.ReplaceAll(strings.TrimSpace(text), "\n", "\n  ") + "\n"
		}
	case "json":
		if in != "site" {
			text = strings.TrimSpace(text)
			text = strings.TrimSuffix(strings.TrimPrefix(text, "{"), "}")
			if bare {
				text += `, "match_labels": {"app": "example"}`
			}
			return fmt.Appendf(nil, snippetFrames["json"]["site"], fmt.Sprintf(frame, text)), nil
		}
	}
	return fmt.Appendf(nil, frame, text), nil
}

// meanTheSame returns an error if the snippets of a group differ. A group has at most one
// snippet of each syntax.
func meanTheSame(group []*snippet) error {
	if len(group) < 2 {
		return errors.New("there is nothing to compare with")
	}
	var first any
	seen := make(map[string]bool)
	for _, s := range group {
		if seen[s.lang] {
			return fmt.Errorf("%s: there are two in %s", s, s.lang)
		}
		seen[s.lang] = true
		config, err := adaptSnippet(s)
		if err != nil {
			return fmt.Errorf("%s: %w", s, err)
		}
		means, err := meaning(config)
		switch {
		case err != nil:
			return fmt.Errorf("%s: %w", s, err)
		case first == nil:
			first = means
		case !reflect.DeepEqual(means, first):
			return fmt.Errorf("in %s it is\n%s\nin %s it is\n%s", s.lang, encode(means), group[0].lang, encode(first))
		}
	}
	return nil
}

func encode(value any) []byte {
	text, _ := json.MarshalIndent(value, "", "  ") // decoded from JSON, so this cannot fail
	return text
}

// meaning decodes a configuration and normalizes durations and defaults, so that
// equivalent configurations compare equal.
func meaning(config []byte) (any, error) {
	var tree any
	if err := json.Unmarshal(config, &tree); err != nil {
		return nil, err
	}
	return normal(tree), nil
}

func normal(value any) any {
	switch value := value.(type) {
	case []any:
		for i := range value {
			value[i] = normal(value[i])
		}
	case map[string]any:
		for key := range value {
			value[key] = normal(value[key])
		}
		if value["servers"] != nil && value["grace_period"] == float64(30*time.Second) {
			delete(value, "grace_period") // the default in YAML
		}
		if value["handler"] == "rgate" && value["stats"] == nil {
			value["stats"] = map[string]any{"path": stats.DefaultPath}
		}
	case string:
		if d, err := caddy.ParseDuration(value); err == nil {
			return float64(d)
		}
	}
	return value
}

// decodeShownResponse checks that the fields of a documented response exist.
func decodeShownResponse(s *snippet) error {
	var into any
	switch s.words["is"] {
	case "stats":
		into = new(stats.Report)
	case "docker":
		into = new(struct {
			Endpoints []dockerupstreams.EndpointStatus `json:"endpoints"`
		})
	case "usage":
		into = new([]usageItem)
	case "json_lines":
		into = new(struct {
			Time    time.Time `json:"time"`
			Gateway string    `json:"gateway"`
			stats.SeriesSnapshot
		})
	default:
		return fmt.Errorf("unknown kind of response %q", s.words["is"])
	}
	return caddy.StrictUnmarshalJSON([]byte(s.text), into)
}

// pagesOfText are pages that describe no single feature.
var pagesOfText = []string{
	"README.md", "docs/README.md", "docs/behaviour.md", "docs/guide/command-line.md", "docs/operate/troubleshooting.md",
}

// TestPagesShowThreeSyntaxes checks that the page of each feature shows one gateway in
// all syntaxes. TestDocumentation compares them.
func TestPagesShowThreeSyntaxes(t *testing.T) {
	for _, page := range pages(t) {
		if slices.Contains(pagesOfText, pageName(page)) || strings.HasPrefix(pageName(page), "docs/internals/") {
			continue
		}
		syntaxes := make(map[string]int) // number of snippets by group
		most := 0
		for _, s := range snippetsOf(t, page) {
			if name := s.words["same"]; name != "" {
				syntaxes[name]++
				most = max(most, syntaxes[name])
			}
		}
		if most < 3 {
			t.Errorf("%s does not show one gateway in three syntaxes", pageName(page))
		}
	}
}

// TestExamples provisions the repository's example files.
func TestExamples(t *testing.T) {
	read := func(file, lang string) *snippet {
		content, err := os.ReadFile("../" + file)
		must(t, "reading an example", err)
		return &snippet{page: file, line: 1, lang: lang, text: string(content)}
	}
	yaml, caddyfile := read("rgate.example.yaml", "yaml"), read("Caddyfile.example", "caddyfile")
	all := []*snippet{yaml, caddyfile}
	demos, err := filepath.Glob("../demo/*.yaml")
	must(t, "looking for examples", err)
	for _, file := range demos {
		if name := filepath.Base(file); name != "compose.yaml" {
			all = append(all, read("demo/"+name, "yaml"))
		}
	}
	if len(all) < 3 {
		t.Error("the demo has no gateway")
	}
	for _, s := range all {
		if err := tryConfig(s); err != nil {
			t.Errorf("%s: %v", s, err)
		}
	}
	config, err := adaptSnippet(yaml)
	must(t, "adapting", err)
	if err := meanTheSame([]*snippet{yaml, caddyfile, {page: "JSON", lang: "json", text: string(config)}}); err != nil {
		t.Errorf("the two examples: %v", err)
	}
}
