package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// snippet is a fenced code block of a docs page. Options in the comment before it
// describe the block:
//
//	<!-- snippet: in=backend same=ports -->
//
// A block without a comment is a whole file: rgate YAML, a Caddyfile, or Caddy's
// JSON. The options are:
//
//	in=site, in=gateway, in=backend, in=route
//	             a partial configuration of this level; see wrapSnippet
//	same=NAME    the blocks with this name, one of each syntax, are equivalent
//	as=FILE      shell commands of the page can read the block as this file
//	adapts       adapt only: provisioning requires files that do not exist
//	fails        an invalid configuration; the next text block is the error
//	run          shell commands to run; the next text block, if any, is the
//	             complete output
//	exit=N       the expected exit code of run
//	commands     shell commands; the commands and flags must exist
//	is=KIND      not a configuration: a JSON response (stats, docker,
//	             json_lines, usage), or a figure drawn as text
type snippet struct {
	page, lang, text string
	line             int
	words            map[string]string
	output           *snippet // the text block after it, if any
}

func (s *snippet) String() string { return fmt.Sprintf("%s:%d", s.page, s.line) }

func (s *snippet) has(word string) bool {
	_, ok := s.words[word]
	return ok
}

var (
	snippetFence   = regexp.MustCompile("^( *)(```+|~~~+) *(\\S*)$")
	snippetComment = regexp.MustCompile(`^ *<!-- snippet: (.+) -->$`)
	snippetWord    = regexp.MustCompile(`^(in=(site|gateway|backend|route)|same=\w+|as=[\w.]+|exit=\d+|is=(stats|docker|json_lines|usage|figure)|adapts|fails|run|commands)$`)
)

// pages returns the paths of the README and of all files in docs.
func pages(t testing.TB) []string {
	t.Helper()
	top, err := filepath.Glob("../docs/*.md")
	must(t, "looking for pages", err)
	grouped, err := filepath.Glob("../docs/*/*.md")
	must(t, "looking for pages", err)
	return slices.Concat([]string{"../README.md"}, top, grouped)
}

// pageName returns the path of a page relative to the repository.
func pageName(page string) string { return strings.TrimPrefix(page, "../") }

// snippetsOf returns the fenced code blocks of a page.
func snippetsOf(t testing.TB, page string) []*snippet {
	t.Helper()
	content, err := os.ReadFile(page)
	must(t, "reading a page", err)
	snippets, err := parseSnippets(pageName(page), string(content))
	must(t, "reading snippets", err)
	return snippets
}

func parseSnippets(page, content string) ([]*snippet, error) {
	var all []*snippet
	var open *snippet
	var indent, mark, words string
	for i, line := range strings.Split(content, "\n") {
		at := fmt.Sprintf("%s:%d", page, i+1)
		if m := snippetFence.FindStringSubmatch(line); open == nil && m != nil {
			open = &snippet{page: page, lang: m[3], line: i + 1, words: make(map[string]string)}
			indent, mark = m[1], m[2]
			for word := range strings.FieldsSeq(words) {
				if !snippetWord.MatchString(word) {
					return nil, fmt.Errorf("%s: the word %q means nothing: see type snippet", at, word)
				}
				key, value, _ := strings.Cut(word, "=")
				open.words[key] = value
			}
			words = ""
			continue
		}
		if open != nil && strings.TrimSpace(line) == mark {
			last := len(all) - 1
			switch {
			case open.lang == "text" && !open.has("is") && last >= 0 && all[last].output == nil && (all[last].has("fails") || all[last].has("run")):
				all[last].output = open
			default:
				all = append(all, open)
			}
			open = nil
			continue
		}
		if open != nil {
			open.text += strings.TrimPrefix(line, indent) + "\n"
			continue
		}
		if m := snippetComment.FindStringSubmatch(line); m != nil {
			words = m[1]
		} else if words != "" {
			return nil, fmt.Errorf("%s: a comment about a snippet must be followed by the snippet", at)
		}
	}
	if open != nil {
		return nil, fmt.Errorf("%s: the block is not closed", open)
	}
	return all, nil
}

func TestSnippetsAreRead(t *testing.T) {
	const page = "# Page\n\n<!-- snippet: in=backend same=ports -->\n```yaml\nport: 1\n```\n" +
		"- item\n\n  <!-- snippet: fails -->\n  ```yaml\n  a:\n    b: 1\n  ```\n\n  ```text\n  wrong\n  ```\n"
	got, err := parseSnippets("page.md", page)
	must(t, "reading snippets", err)
	if len(got) != 2 {
		t.Fatalf("there are %d snippets", len(got))
	}
	if s := got[0]; s.lang != "yaml" || s.text != "port: 1\n" || s.words["in"] != "backend" || s.words["same"] != "ports" || s.output != nil {
		t.Errorf("the first is %+v", s)
	}
	if s := got[1]; s.text != "a:\n  b: 1\n" || !s.has("fails") || s.output == nil || s.output.text != "wrong\n" {
		t.Errorf("the second is %+v", s)
	}
	for what, page := range map[string]string{
		"unknown word":   "<!-- snippet: inside=x -->\n```yaml\n```\n",
		"stray comment":  "<!-- snippet: run -->\ntext\n",
		"unclosed block": "```yaml\nport: 1\n",
	} {
		if _, err := parseSnippets("page.md", page); err == nil {
			t.Errorf("%s: no error", what)
		}
	}
}

func TestWrongSnippetsAreFound(t *testing.T) {
	for what, s := range map[string]*snippet{
		"unknown language":     {lang: "toml", text: "a = 1\n"},
		"no language":          {text: "rgate\n"},
		"unmarked commands":    {lang: "sh", text: "make test\n"},
		"stray text":           {lang: "text", text: "Hello\n"},
		"YAML":                 {lang: "yaml", text: "rotes: []\n"},
		"Caddyfile":            {lang: "caddyfile", text: ":8080 {\n\trgate {\n\t\tbackend\n\t}\n}\n"},
		"format":               {lang: "caddyfile", text: ":8080 {\n  respond ok\n}\n"},
		"JSON":                 {lang: "json", text: `{"apps": {"http": {"servers": {"a": {"listne": []}}}}}`},
		"JSON of a gateway":    {lang: "json", text: `{"rotes": []}`, words: map[string]string{"in": "gateway"}},
		"provisioning":         {lang: "yaml", text: "docker: ftp://x\n" + "backends: [{name: a, match_labels: [a=b]}]\n"},
		"fails and does not":   {lang: "yaml", text: "routes: []\n", words: map[string]string{"fails": ""}},
		"fails otherwise":      {lang: "yaml", text: "rotes: []\n", words: map[string]string{"fails": ""}, output: &snippet{text: "no\n"}},
		"fails without a word": {lang: "yaml", text: "rotes: []\n", words: map[string]string{"fails": ""}},
		"response":             {lang: "json", text: `{"requests": {}}`, words: map[string]string{"is": "stats"}},
		"status":               {lang: "sh", text: "exit 3\n", words: map[string]string{"run": ""}},
		"output":               {lang: "sh", text: "echo a\n", words: map[string]string{"run": ""}, output: &snippet{text: "b\n"}},
		"target":               {lang: "sh", text: "make coffee\n", words: map[string]string{"commands": ""}},
		"program":              {lang: "sh", text: "rgaet -c x.yaml\n", words: map[string]string{"commands": ""}},
		"command":              {lang: "sh", text: "rgate relaod\n", words: map[string]string{"commands": ""}},
		"flag":                 {lang: "sh", text: "rgate reload --confg x.yaml\n", words: map[string]string{"commands": ""}},
		"module":               {lang: "sh", text: "xcaddy build --with example.com/x\n", words: map[string]string{"commands": ""}},
	} {
		if testing.Short() && s.lang == "sh" {
			continue // commands require the binary
		}
		if err := runSnippet(t, s, nil); err == nil {
			t.Errorf("%s: nothing is found wrong with %q", what, s.text)
		}
	}
	yaml := &snippet{lang: "yaml", text: "default_response: {body: a}\n"}
	json := &snippet{lang: "json", text: `{"default_response": {"body": "b"}}`, words: map[string]string{"in": "gateway"}}
	for what, group := range map[string][]*snippet{"different": {yaml, json}, "alone": {yaml}, "twice": {yaml, yaml}} {
		if err := meanTheSame(group); err == nil {
			t.Errorf("%s: taken for the same", what)
		}
	}
}
