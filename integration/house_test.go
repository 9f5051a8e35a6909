package integration

import (
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"io/fs"
	"os"
	pathpkg "path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// What each room may import of the others. A room that is not listed imports
// none: the demo and the tools stand outside of the house. Wherever rooms need
// each other beyond this, they meet through Caddy: modules, placeholders, events.
var allowedImports = map[string][]string{
	"":                 {"access/apikey", "access/cors", "access/ipfilter", "access/jwt", "access/ratelimit", "access/requestid", "access/require", "access/security", "balance", "bandwidth", "caddyfile", "cli", "dashboard", "dockerupstreams", "gateway", "stats", "traffic/cache", "traffic/circuitbreaker", "traffic/coalesce", "traffic/concurrency", "traffic/fallback", "traffic/transform"},
	"access/apikey":    {"access/identity", "access/ratelimit", "internal/httpx", "policy"},
	"access/cors":      {"internal/httpx", "policy"},
	"access/identity":  {"policy"},
	"access/ipfilter":  {"policy"},
	"access/jwt":       {"access/identity", "internal/httpx", "policy"},
	"access/ratelimit": {"internal/monotime", "policy"},
	"access/requestid": {"internal/httpx", "policy"},
	"access/require":   {"access/identity", "policy"},
	"access/security":  {"internal/httpx", "policy"},
	"balance":          {"dockerupstreams", "internal/monotime", "policy"},
	"caddyfile":        {"dockerupstreams", "gateway", "policy", "stats"}, // their configuration
	"cli":              {"bandwidth", "caddyfile"},
	"cmd/rgate":        {"", "cli"},
	"dashboard":        {"bandwidth/store", "policy", "stats"},
	// The demos share what runs Docker's client.
	"demo/bandwidth":  {"demo/docker", "demo/assert"},
	"demo/chaos":      {"demo/docker"},
	"demo/run":        {"demo/docker", "demo/assert"},
	"dockerupstreams": {"internal/entry"},
	"gateway":         {"dockerupstreams", "internal/entry", "internal/monotime", "internal/query", "policy", "stats"},
	// A tool that measures a pure core.
	"hack/bench-balance": {"balance"},
	"internal/entry":     {},
	"internal/httpx":     {"internal/query"},
	"internal/monotime":  {},
	"internal/query":     {},
	"internal/testkit":   {},
	"policy":             {"internal/entry", "internal/monotime", "internal/query"},
	"stats":              {"internal/entry", "internal/query", "policy"},

	"bandwidth":              {"bandwidth/api", "bandwidth/scrape", "bandwidth/store", "internal/pause", "policy", "stats"},
	"bandwidth/api":          {"bandwidth/store", "policy"},
	"bandwidth/scrape":       {"bandwidth/store", "policy"},
	"bandwidth/store":        {"internal/pause", "policy", "stats"},
	"bandwidth/storetest":    {"stats"},
	"internal/pause":         {},
	"internal/lease":         {},
	"policy/policytest":      {"internal/testkit", "policy"},
	"traffic/cache":          {"internal/httpx", "policy", "traffic/httpcache", "traffic/sharing"},
	"traffic/circuitbreaker": {"internal/lease", "internal/monotime", "policy"},
	"traffic/coalesce":       {"internal/httpx", "policy", "traffic/httpcache", "traffic/sharing"},
	"traffic/concurrency":    {"internal/httpx", "internal/lease", "policy"},
	"traffic/fallback":       {"internal/httpx", "internal/lease", "policy", "traffic/httpcache", "traffic/sharing"},
	"traffic/httpcache":      {},
	"traffic/sharing":        {"policy", "traffic/httpcache"},
	"traffic/transform":      {"internal/query", "policy"},
}

// What tests may import besides: the fake engine and the modules that a test
// needs to be loaded. Package integration looks at everything.
var allowedInTests = map[string][]string{
	"balance":         {"dockerupstreams/dockertest", "gateway"},
	"caddyfile":       {"access/apikey", "access/cors", "access/ipfilter", "access/jwt", "access/ratelimit", "access/requestid", "access/require", "access/security", "balance", "stats", "traffic/cache", "traffic/circuitbreaker", "traffic/coalesce", "traffic/concurrency", "traffic/fallback", "traffic/transform"},
	"cli":             {""},
	"dockerupstreams": {"dockerupstreams/dockertest"},
	"gateway":         {"caddyfile", "dockerupstreams/dockertest"},

	"bandwidth":        {"bandwidth/mailtest", "bandwidth/storetest"},
	"bandwidth/api":    {"bandwidth/scrape"},
	"bandwidth/scrape": {"bandwidth/storetest"},
	"bandwidth/store":  {"bandwidth/storetest"},
	"dashboard":        {"bandwidth"},

	// A gateway in the process of the test.
	"integration/stream":     {""},
	"traffic/cache":          {"internal/testkit"},
	"traffic/circuitbreaker": {"policy/policytest"},
	"traffic/coalesce":       {"internal/testkit", "policy/policytest"},
	"traffic/concurrency":    {"internal/testkit", "policy/policytest"},
	"traffic/fallback":       {"internal/testkit", "policy/policytest", "traffic/circuitbreaker"},
}

// Files that are pure: they know nothing of Caddy and of Docker's client, so that
// they can be tested, fuzzed and measured by themselves.
var pureFiles = map[string][]string{
	"access/jwt":             {"cache.go", "claims.go", "keys.go", "source.go", "token.go"},
	"access/cors":            {"origins.go"},
	"access/identity":        {"claimvalues.go"},
	"access/ipfilter":        {"ipset.go"},
	"access/ratelimit":       {"hasher.go", "headers.go", "limiter.go", "prefetch.go", "prefetch_other.go", "queue.go", "window.go"},
	"access/requestid":       {"correlation.go"},
	"access/security":        {"limits.go"},
	"bandwidth":              {"alert.go", "calendar.go", "forecast.go"},
	"bandwidth/api":          {"format.go", "params.go", "timerange.go"},
	"bandwidth/scrape":       {"counters.go"},
	"balance":                {"bounded.go", "latency.go", "ring.go"},
	"dockerupstreams":        {"container.go", "decode.go", "labels.go", "limiter.go", "rules.go", "selector.go", "set.go", "site.go", "table.go", "view.go"},
	"dashboard":              {"chart.go", "format.go", "span.go"},
	"gateway":                {"ambiguous.go", "conditions.go", "conflicts.go", "groups.go", "path.go", "pattern.go", "radix.go", "router.go", "budget.go"},
	"policy":                 {"option.go", "size.go", "suggest.go"},
	"internal/httpx":         {"header.go", "range.go", "unreadbody.go"},
	"stats":                  {"account.go", "drain.go", "recorder.go", "redact.go", "report.go", "requestlog.go", "ring.go", "series.go", "sketch.go", "counts.go", "traffic.go"},
	"internal/lease":         {"lease.go"},
	"traffic/circuitbreaker": {"breaker.go"},
	"traffic/coalesce":       {"call.go", "sharedcontext.go", "stream.go"},
	"traffic/concurrency":    {"earlybody.go", "limiter.go"},
	"traffic/fallback":       {"stalestore.go"},
	"traffic/httpcache":      {"conditional.go", "directives.go", "entry.go", "fields.go", "flight.go", "freshness.go", "key.go", "purge.go", "request.go", "store.go", "vary.go"},
	"traffic/transform":      {"jsonedit.go", "query.go", "rewrite.go", "value.go"},
}

// Those of them that lean on nothing else of their package either.
var pureCores = map[string][][]string{
	"access/jwt":             {{"keys.go"}},
	"access/ratelimit":       {{"hasher.go", "limiter.go", "prefetch.go", "window.go"}, {"hasher.go", "queue.go", "window.go"}},
	"bandwidth":              {{"forecast.go"}, {"calendar.go"}},
	"balance":                {{"bounded.go"}, {"latency.go"}, {"ring.go"}},
	"dockerupstreams":        {{"container.go", "labels.go", "rules.go", "selector.go", "set.go", "site.go"}},
	"dashboard":              {{"format.go"}, {"chart.go", "format.go", "span.go"}},
	"gateway":                {{"path.go"}, {"radix.go"}, {"budget.go"}},
	"policy":                 {{"option.go"}, {"suggest.go"}},
	"stats":                  {{"account.go", "drain.go", "recorder.go", "redact.go", "report.go", "requestlog.go", "ring.go", "series.go", "sketch.go", "counts.go", "traffic.go"}},
	"traffic/circuitbreaker": {{"breaker.go"}},
	"traffic/coalesce":       {{"sharedcontext.go"}, {"stream.go"}},
	"traffic/concurrency":    {{"limiter.go"}},
	"traffic/httpcache":      {{"conditional.go"}, {"directives.go"}, {"key.go"}, {"fields.go"}, {"directives.go", "fields.go", "freshness.go", "request.go", "vary.go"}},
	"traffic/transform":      {{"jsonedit.go"}, {"query.go"}, {"rewrite.go"}},
}

// Why a Go file may be longer than maxLines.
var longFiles = map[string]string{}

const (
	modulePath = "github.com/rgate/rgate"
	maxLines   = 450
)

// sourceFile is a Go file of the repository.
type sourceFile struct {
	path   string // in the repository
	room   string // the folder that it is in, empty for the root
	lines  int
	tree   *ast.File
	isTest bool
}

func (f *sourceFile) imports() (paths []string) {
	for _, spec := range f.tree.Imports {
		paths = append(paths, strings.Trim(spec.Path.Value, `"`))
	}
	return paths
}

// sourceFiles parses all Go files of the repository.
func sourceFiles(t *testing.T) (files []*sourceFile) {
	t.Helper()
	fset := token.NewFileSet()
	root := os.DirFS("..")
	err := fs.WalkDir(root, ".", func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && (strings.HasPrefix(entry.Name(), ".") && path != "." || path == "bin"):
			return fs.SkipDir
		case entry.IsDir() || filepath.Ext(path) != ".go":
			return nil
		}
		content, err := fs.ReadFile(root, path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil // removed in the meantime
		}
		if err != nil {
			return err
		}
		tree, err := parser.ParseFile(fset, path, content, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		room := filepath.ToSlash(filepath.Dir(path))
		if room == "." {
			room = ""
		}
		files = append(files, &sourceFile{
			path: path, room: room, tree: tree,
			lines: fset.File(tree.Pos()).LineCount(), isTest: strings.HasSuffix(path, "_test.go"),
		})
		return nil
	})
	must(t, "reading the sources", err)
	if len(files) == 0 {
		t.Fatal("there are no sources")
	}
	return files
}

// roomOf is the room that an import path leads to, if it is one of rgate's.
func roomOf(path string) (room string, ours bool) {
	if path == modulePath {
		return "", true
	}
	return strings.CutPrefix(path, modulePath+"/")
}

func TestRoomsImportOnlyWhatTheyMay(t *testing.T) {
	used := make(map[[2]string]bool)
	for _, f := range sourceFiles(t) {
		for _, path := range f.imports() {
			room, ours := roomOf(path)
			if !ours || room == f.room {
				continue
			}
			if !f.isTest {
				used[[2]string{f.room, room}] = true
			}
			may := slices.Contains(allowedImports[f.room], room) || f.isTest && (room == "internal/testkit" || f.room == "integration")
			if !may && (!f.isTest || !slices.Contains(allowedInTests[f.room], room)) {
				t.Errorf("%s imports %s, which room %q may not: let the two meet through Caddy", f.path, path, f.room)
			}
		}
	}
	// The root is what one import plugs into Caddy: no room may be forgotten there.
	for _, room := range allowedImports[""] {
		if !used[[2]string{"", room}] {
			t.Errorf("module.go does not import %s", room)
		}
	}
}

func TestEveryRoomIsKnown(t *testing.T) {
	for _, f := range sourceFiles(t) {
		top, _, _ := strings.Cut(f.room, "/")
		_, listed := allowedImports[f.room]
		outside := slices.Contains([]string{"demo", "hack", "integration"}, top) || slices.Contains([]string{"bandwidth/mailtest", "dockerupstreams/dockertest"}, f.room)
		if !listed && !outside {
			t.Errorf("%s is in a room that has no rules: add it to allowedImports", f.path)
		}
	}
}

// The engine's client can be changed for its successor in one file.
func TestDockerClientIsBehindOneInterface(t *testing.T) {
	found := false
	for _, f := range sourceFiles(t) {
		if f.isTest || f.room != "dockerupstreams" {
			continue
		}
		for _, path := range f.imports() {
			if !strings.HasPrefix(path, "github.com/docker/docker/") {
				continue
			}
			switch filepath.Base(f.path) {
			case "engine.go":
				found = true
			case "address.go": // the names of its environment variables
				if path != "github.com/docker/docker/client" {
					t.Errorf("%s imports %s", f.path, path)
				}
			default:
				t.Errorf("%s imports %s, which belongs into engine.go", f.path, path)
			}
		}
	}
	if !found {
		t.Error("engine.go does not use Docker's client: is it somewhere else?")
	}
}

func TestPureFilesImportNoCaddy(t *testing.T) {
	missing := make(map[string]bool)
	for room, names := range pureFiles {
		for _, name := range names {
			missing[room+"/"+name] = true
		}
	}
	for _, f := range sourceFiles(t) {
		if !missing[f.path] {
			continue
		}
		delete(missing, f.path)
		for _, path := range f.imports() {
			if strings.HasPrefix(path, "github.com/caddyserver/") || strings.HasPrefix(path, "github.com/docker/") {
				t.Errorf("%s is pure and imports %s", f.path, path)
			}
		}
	}
	for path := range missing {
		t.Errorf("%s is not there any more: say which file is pure in its place", path)
	}
}

// TestPureCoresStandAlone type-checks each core without the rest of its package:
// whatever it leans on is then undefined.
func TestPureCoresStandAlone(t *testing.T) {
	for room, cores := range pureCores {
		for _, core := range cores {
			for _, name := range undefinedIn(t, room, core) {
				t.Errorf("the core %s of %s leans on the rest of the package: %s", strings.Join(core, ", "), room, name)
			}
		}
	}
}

func TestUndefinedIsFound(t *testing.T) {
	if undefinedIn(t, "gateway", []string{"router.go"}) == nil {
		t.Error("router.go uses type Route, which is in another file")
	}
}

// undefinedIn lists what a few files of a package use that is not in them. What
// they import is not looked at.
func undefinedIn(t *testing.T, room string, names []string) (undefined []string) {
	t.Helper()
	fset := token.NewFileSet()
	var trees []*ast.File
	versioned := make(map[string]bool)
	for _, name := range names {
		tree, err := parser.ParseFile(fset, filepath.Join("..", room, name), nil, parser.SkipObjectResolution)
		must(t, "parsing", err)
		trees = append(trees, tree)
		for _, spec := range tree.Imports {
			path := strings.Trim(spec.Path.Value, `"`)
			if parent, version := pathpkg.Split(path); strings.HasPrefix(version, "v") {
				versioned[pathpkg.Base(parent)] = true
			}
		}
	}
	config := types.Config{
		Importer: noImporter{},
		Error: func(err error) {
			// A package whose path ends in its major version is looked for by that name.
			if _, name, ok := strings.Cut(err.Error(), "undefined: "); ok && !versioned[name] {
				undefined = append(undefined, err.Error())
			}
		},
	}
	_, _ = config.Check(room, fset, trees, nil) // its errors were told one by one
	return undefined
}

// noImporter finds no package, which the type checker then takes for whatever is
// asked of it.
type noImporter struct{}

func (noImporter) Import(string) (*types.Package, error) { return nil, fs.ErrNotExist }

func TestFilesAreShort(t *testing.T) {
	for _, f := range sourceFiles(t) {
		if f.lines > maxLines && longFiles[f.path] == "" {
			t.Errorf("%s has %d lines: split it, or say in longFiles why it reads better in one piece", f.path, f.lines)
		}
	}
}

// What may be called in the init of a room: registering, and nothing that
// depends on what other rooms have done before.
var registrations = []string{
	"caddy.RegisterModule", "caddy.RegisterNetwork", "caddycmd.RegisterCommand", "caddyconfig.RegisterAdapter",
	"httpcaddyfile.RegisterDirective", "httpcaddyfile.RegisterHandlerDirective", "httpcaddyfile.RegisterDirectiveOrder",
}

func TestInitOnlyRegisters(t *testing.T) {
	count := 0
	for _, f := range sourceFiles(t) {
		if _, ours := allowedImports[f.room]; !ours || f.isTest {
			continue
		}
		for _, decl := range f.tree.Decls {
			function, ok := decl.(*ast.FuncDecl)
			if !ok || function.Recv != nil || function.Name.Name != "init" {
				continue
			}
			count++
			for _, statement := range function.Body.List {
				name := calledBy(statement)
				if !slices.Contains(registrations, name) {
					t.Errorf("%s: init does more than to register: %s", f.path, name)
				}
				// Several directives before the same one stack in the order of the
				// calls, which only one file can tell.
				if name == "httpcaddyfile.RegisterDirectiveOrder" && f.path != "module.go" {
					t.Errorf("%s: the order of directives is given in module.go alone", f.path)
				}
			}
		}
	}
	if count == 0 {
		t.Error("nothing is registered anywhere")
	}
}

// calledBy is the function that a statement calls, as `package.Name`.
func calledBy(statement ast.Stmt) string {
	expr, ok := statement.(*ast.ExprStmt)
	if !ok {
		return "something that is not a call"
	}
	call, ok := expr.X.(*ast.CallExpr)
	if !ok {
		return "something that is not a call"
	}
	if selector, ok := call.Fun.(*ast.SelectorExpr); ok {
		if pkg, ok := selector.X.(*ast.Ident); ok {
			return pkg.Name + "." + selector.Sel.Name
		}
	}
	return "a function of its own"
}
