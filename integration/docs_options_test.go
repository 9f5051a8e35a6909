package integration

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/rgate/rgate/access/apikey"
	"github.com/rgate/rgate/access/cors"
	"github.com/rgate/rgate/access/ipfilter"
	"github.com/rgate/rgate/access/jwt"
	"github.com/rgate/rgate/access/ratelimit"
	"github.com/rgate/rgate/access/requestid"
	"github.com/rgate/rgate/access/require"
	"github.com/rgate/rgate/access/security"
	"github.com/rgate/rgate/balance"
	"github.com/rgate/rgate/bandwidth"
	"github.com/rgate/rgate/bandwidth/notify"
	"github.com/rgate/rgate/bandwidth/scrape"
	"github.com/rgate/rgate/dashboard"
	"github.com/rgate/rgate/dockerupstreams"
	rgateway "github.com/rgate/rgate/gateway"
	"github.com/rgate/rgate/gateway/operations"
	"github.com/rgate/rgate/stats"
	"github.com/rgate/rgate/traffic/cache"
	"github.com/rgate/rgate/traffic/circuitbreaker"
	"github.com/rgate/rgate/traffic/coalesce"
	"github.com/rgate/rgate/traffic/concurrency"
	"github.com/rgate/rgate/traffic/fallback"
	"github.com/rgate/rgate/traffic/transform"
)

// optionsOf maps the names in <!-- options: gateway.Route --> comments to types. The
// table after a comment must list exactly the options of the type.
var optionsOf = map[string]reflect.Type{
	"bandwidth.Meter":               reflect.TypeFor[bandwidth.Meter](),
	"bandwidth.Retention":           reflect.TypeFor[bandwidth.Retention](),
	"scrape.Source":                 reflect.TypeFor[scrape.Source](),
	"scrape.SourceAuth":             reflect.TypeFor[scrape.SourceAuth](),
	"fallback.Response":             reflect.TypeFor[fallback.Response](),
	"fallback.Fallback":             reflect.TypeFor[fallback.Fallback](),
	"coalesce.Coalesce":             reflect.TypeFor[coalesce.Coalesce](),
	"gateway.RetryBudget":           reflect.TypeFor[rgateway.RetryBudget](),
	"circuitbreaker.CircuitBreaker": reflect.TypeFor[circuitbreaker.CircuitBreaker](),
	"concurrency.Concurrency":       reflect.TypeFor[concurrency.Concurrency](),
	"cache.Cache":                   reflect.TypeFor[cache.Cache](),
	"transform.Transform":           reflect.TypeFor[transform.Transform](),
	"transform.RequestEdits":        reflect.TypeFor[transform.RequestEdits](),
	"transform.ResponseEdits":       reflect.TypeFor[transform.ResponseEdits](),
	"transform.FieldEdits":          reflect.TypeFor[transform.FieldEdits](),
	"transform.BodyEdits":           reflect.TypeFor[transform.BodyEdits](),
	"transform.RequestBodyEdits":    reflect.TypeFor[transform.RequestBodyEdits](),
	"cors.CORS":                     reflect.TypeFor[cors.CORS](),
	"requestid.RequestID":           reflect.TypeFor[requestid.RequestID](),
	"security.Security":             reflect.TypeFor[security.Security](),
	"apikey.APIKey":                 reflect.TypeFor[apikey.APIKey](),
	"ipfilter.IPFilter":             reflect.TypeFor[ipfilter.IPFilter](),
	"apikey.Key":                    reflect.TypeFor[apikey.Key](),
	"require.Require":               reflect.TypeFor[require.Require](),
	"ratelimit.RateLimit":           reflect.TypeFor[ratelimit.RateLimit](),
	"ratelimit.Limit":               reflect.TypeFor[ratelimit.Limit](),
	"ratelimit.Throttle":            reflect.TypeFor[ratelimit.Throttle](),
	"jwt.JWT":                       reflect.TypeFor[jwt.JWT](),
	"jwt.Roles":                     reflect.TypeFor[jwt.Roles](),
	"bandwidth.Quota":               reflect.TypeFor[bandwidth.Quota](),
	"bandwidth.QuotaConsumer":       reflect.TypeFor[bandwidth.QuotaConsumer](),
	"bandwidth.Notify":              reflect.TypeFor[bandwidth.Notify](),
	"notify.SMTP":                   reflect.TypeFor[notify.SMTP](),
	"notify.Webhook":                reflect.TypeFor[notify.Webhook](),
	"dashboard.Dashboard":           reflect.TypeFor[dashboard.Dashboard](),
	"balance.RingHash":              reflect.TypeFor[balance.RingHash](),
	"gateway.Gateway":               reflect.TypeFor[rgateway.Gateway](),
	"operations.Config":             reflect.TypeFor[operations.Config](),
	"operations.Registration":       reflect.TypeFor[operations.Registration](),
	"gateway.DefaultResponse":       reflect.TypeFor[rgateway.DefaultResponse](),
	"gateway.Route":                 reflect.TypeFor[rgateway.Route](),
	"gateway.Share":                 reflect.TypeFor[rgateway.Share](),
	"gateway.Group":                 reflect.TypeFor[rgateway.Group](),
	"gateway.Deprecation":           reflect.TypeFor[rgateway.Deprecation](),
	"gateway.Backend":               reflect.TypeFor[rgateway.Backend](),
	"gateway.Timeouts":              reflect.TypeFor[rgateway.Timeouts](),
	"stats.Config":                  reflect.TypeFor[stats.Config](),
	"stats.Handler":                 reflect.TypeFor[stats.Handler](),
	"stats.JSONLines":               reflect.TypeFor[stats.JSONLines](),
	"dockerupstreams.Selector":      reflect.TypeFor[dockerupstreams.Selector](),
	"dockerupstreams.Endpoint":      reflect.TypeFor[dockerupstreams.Endpoint](),
	"dockerupstreams.Source":        reflect.TypeFor[dockerupstreams.Source](),
}

// jsonKeys returns the JSON keys of a struct, including keys of embedded structs.
func jsonKeys(t reflect.Type) (keys []string) {
	for i := range t.NumField() {
		f := t.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case f.Anonymous && name == "":
			keys = append(keys, jsonKeys(f.Type)...)
		case f.IsExported() && name != "" && name != "-":
			keys = append(keys, name)
		}
	}
	return keys
}

// fileKeys returns the keys that an error message lists for a path in an rgate YAML file.
func fileKeys(t *testing.T, path string) []string {
	text := "zzzzzzzzzz: 1"
	for _, key := range slices.Backward(strings.FieldsFunc(path, func(c rune) bool { return c == '.' })) {
		text = key + ": {" + text + "}"
	}
	_, err := adaptSnippet(&snippet{lang: "yaml", text: text + "\n"})
	return listIn(t, err, "use one of ", ", or a policy")
}

// subdirectivesOf returns the subdirectives that an error message lists for a Caddyfile
// block.
func subdirectivesOf(t *testing.T, block string) []string {
	text := map[string]string{
		"rgate":            "zzzzzzzzzz\n",
		"backend":          "backend x {\nzzzzzzzzzz\n}\n",
		"route":            "route / x {\nzzzzzzzzzz\n}\n",
		"group":            "group /x {\nroute x\nzzzzzzzzzz\n}\n",
		"deprecated":       "route / x {\ndeprecated {\nzzzzzzzzzz\n}\n}\n",
		"timeouts":         "backend x {\ntimeouts {\nzzzzzzzzzz\n}\n}\n",
		"default_response": "default_response {\nzzzzzzzzzz\n}\n",
	}[block]
	if text == "" {
		t.Fatalf("unknown block %q", block)
	}
	_, err := adaptSnippet(&snippet{lang: "caddyfile", text: text, words: map[string]string{"in": "gateway"}})
	return listIn(t, err, ": use ", ", or an HTTP directive")
}

// listIn extracts the list of valid names from an error message.
func listIn(t *testing.T, err error, before, after string) []string {
	t.Helper()
	if err == nil {
		t.Fatal("an unknown word is taken for an option")
	}
	_, list, ok := strings.Cut(err.Error(), before)
	if after != "" {
		list, _, _ = strings.Cut(list, after)
	}
	list = regexp.MustCompile(`,? at Caddyfile.*`).ReplaceAllString(list, "")
	if !ok || list == "" {
		t.Fatalf("the error lists no options: %v", err)
	}
	return strings.Split(list, ", ")
}

// literalsIn returns the string literals that pick selects in the files of a pattern.
func literalsIn(t *testing.T, pattern string, pick func(ast.Node) (string, bool)) (found []string) {
	files, err := filepath.Glob(pattern)
	must(t, "looking for files", err)
	for _, file := range files {
		tree, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
		must(t, "parsing", err)
		ast.Inspect(tree, func(n ast.Node) bool {
			if text, ok := pick(n); ok {
				found = append(found, text)
			}
			return true
		})
	}
	return found
}

// steeringLabels returns the names of the rgate.* container labels.
func steeringLabels(t *testing.T) []string {
	return literalsIn(t, "../dockerupstreams/labels.go", func(n ast.Node) (string, bool) {
		spec, ok := n.(*ast.ValueSpec)
		if !ok || len(spec.Values) != 1 {
			return "", false
		}
		value := literal(spec.Values[0])
		return value, strings.HasPrefix(value, "rgate.")
	})
}

// metricNames returns the names of the metrics that the collectors describe.
func metricNames(t *testing.T) (names []string) {
	described := func(n ast.Node) (string, bool) {
		call, ok := n.(*ast.CallExpr)
		if !ok || len(call.Args) == 0 {
			return "", false
		}
		f, ok := call.Fun.(*ast.SelectorExpr)
		if ok && (f.Sel.Name == "NewDesc" || f.Sel.Name == "NewRequestCounter") {
			name := literal(call.Args[0])
			return name, strings.HasPrefix(name, "rgate_")
		}
		return "", false
	}
	docker := func(n ast.Node) (string, bool) {
		call, ok := n.(*ast.CallExpr)
		if !ok || len(call.Args) == 0 {
			return "", false
		}
		f, ok := call.Fun.(*ast.Ident)
		return "rgate_docker_" + literal(call.Args[0]), ok && f.Name == "describe"
	}
	names = append(literalsIn(t, "../*/*.go", described), literalsIn(t, "../*/*/*.go", described)...)
	return append(names, literalsIn(t, "../dockerupstreams/metrics.go", docker)...)
}

func literal(e ast.Expr) string {
	if basic, ok := e.(*ast.BasicLit); ok && basic.Kind == token.STRING {
		text, _ := strconv.Unquote(basic.Value) // the parser has validated it
		return text
	}
	return ""
}

var (
	tableComment = regexp.MustCompile(`^<!-- (options|subdirectives|labels|metrics|yaml|legacy)(?:: ([\w.]+))? -->$`)
	tableRow     = regexp.MustCompile("^\\| `([^` ]+)[^`]*`")
)

// TestReferenceTables compares the tables of the docs with the code. Each table must list
// exactly the existing names, and no cell may be empty.
func TestReferenceTables(t *testing.T) {
	seen := make(map[string]bool)
	for _, page := range pages(t) {
		content, err := os.ReadFile(page)
		must(t, "reading a page", err)
		lines := strings.Split(string(content), "\n")
		for i, line := range lines {
			m := tableComment.FindStringSubmatch(line)
			if m == nil {
				continue
			}
			at := fmt.Sprintf("%s:%d", pageName(page), i+1)
			seen[pageName(page)+" "+m[0]], seen[m[0]] = true, true
			var want []string
			switch m[1] {
			case "options":
				typ := optionsOf[m[2]]
				if typ == nil {
					t.Errorf("%s: unknown type %q", at, m[2])
					continue
				}
				want = jsonKeys(typ)
			case "subdirectives":
				want = subdirectivesOf(t, m[2])
			case "labels":
				want = steeringLabels(t)
			case "metrics":
				want = metricNames(t)
			case "yaml":
				want = fileKeys(t, m[2])
			case "legacy":
				for name, sentence := range rgateway.LegacyBehaviours() {
					want = append(want, name)
					if row := fmt.Sprintf("| `%s` | %s |", name, sentence); !slices.Contains(lines, row) {
						t.Errorf("%s: the table lacks the row %s", at, row)
					}
				}
			}
			got, err := tableAt(lines[i+1:])
			if err != nil {
				t.Errorf("%s: %v", at, err)
			}
			slices.Sort(got)
			slices.Sort(want)
			if len(want) == 0 || !slices.Equal(got, want) {
				t.Errorf("%s: the table has %q, but there are %q", at, got, want)
			}
		}
	}
	for _, needed := range neededTables() {
		if !seen[needed] {
			t.Errorf("%s is missing", needed)
		}
	}
}

// neededTables returns the required tables. An entry with a path requires the table on
// that page.
func neededTables() []string {
	needed := []string{
		"docs/guide/docker-labels.md <!-- labels -->", "docs/operate/stats.md <!-- metrics -->",
		"docs/guide/yaml.md <!-- yaml -->", "docs/guide/yaml.md <!-- yaml: server -->",
		"docs/guide/yaml.md <!-- yaml: server.timeouts -->", "docs/guide/yaml.md <!-- legacy -->",
	}
	for name := range optionsOf { // on any page
		needed = append(needed, "<!-- options: "+name+" -->")
	}
	for _, block := range []string{"rgate", "backend", "route", "group", "deprecated", "timeouts", "default_response"} {
		needed = append(needed, "docs/guide/caddyfile.md <!-- subdirectives: "+block+" -->")
	}
	return needed
}

// tableAt reads the first column of the table at the start of lines. A cell may contain
// several names, separated by line breaks.
func tableAt(lines []string) (names []string, err error) {
	columns := 0
	for _, line := range lines {
		if !strings.HasPrefix(line, "|") {
			break
		}
		cells := strings.Split(strings.Trim(strings.ReplaceAll(line, `\|`, "/"), "|"), "|")
		if columns == 0 {
			columns = len(cells)
		}
		if len(cells) != columns || slices.ContainsFunc(cells, func(cell string) bool { return strings.TrimSpace(cell) == "" }) {
			return names, fmt.Errorf("a row is incomplete: %s", line)
		}
		if m := tableRow.FindStringSubmatch(line); m != nil {
			names = append(names, m[1])
		}
	}
	return names, nil
}

var (
	link    = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	heading = regexp.MustCompile(`(?m)^#+ (.+)$`)
	notSlug = regexp.MustCompile(`[^a-z0-9 _-]`)
)

// TestLinks checks that the links of the docs have existing targets.
func TestLinks(t *testing.T) {
	count := 0
	for _, page := range append(pages(t), "../CHANGELOG.md") {
		content, err := os.ReadFile(page)
		must(t, "reading a page", err)
		for _, m := range link.FindAllStringSubmatch(string(content), -1) {
			file, anchor, _ := strings.Cut(m[1], "#")
			if strings.Contains(m[1], "://") {
				continue
			}
			count++
			target := page
			if file != "" {
				target = filepath.Join(filepath.Dir(page), file)
			}
			text, err := os.ReadFile(target)
			if info, statErr := os.Stat(target); statErr == nil && info.IsDir() {
				continue
			}
			if err != nil {
				t.Errorf("%s links to %s, which is not there", pageName(page), m[1])
				continue
			}
			if anchor != "" && !slices.Contains(anchorsOf(string(text)), anchor) {
				t.Errorf("%s links to %s, which has no such heading", pageName(page), m[1])
			}
		}
	}
	if count == 0 {
		t.Error("no page links to another")
	}
}

func anchorsOf(text string) (anchors []string) {
	for _, m := range heading.FindAllStringSubmatch(text, -1) {
		slug := notSlug.ReplaceAllString(strings.ToLower(m[1]), "")
		anchors = append(anchors, strings.ReplaceAll(slug, " ", "-"))
	}
	return anchors
}
