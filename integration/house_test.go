package integration

import (
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// allowedImports lists the packages of the repository that each package may import.
// Packages in demo, hack and integration that are not listed import none. All other
// communication uses Caddy's modules, placeholders and events.
var allowedImports = map[string][]string{
	"":                   {"access/apikey", "access/cors", "access/ipfilter", "access/jwt", "access/ratelimit", "access/requestid", "access/require", "access/security", "balance", "bandwidth", "caddyfile", "cli", "dashboard", "dockerupstreams", "gateway", "stats", "traffic/cache", "traffic/circuitbreaker", "traffic/coalesce", "traffic/concurrency", "traffic/fallback", "traffic/transform"},
	"access/apikey":      {"access/identity", "access/ratelimit", "internal/httpx", "internal/options", "internal/trust", "policy"},
	"access/cors":        {"internal/httpx", "internal/options", "policy"},
	"access/identity":    {"internal/options", "internal/trust", "policy"},
	"access/ipfilter":    {"internal/options", "internal/trust", "policy"},
	"access/jwt":         {"access/identity", "internal/httpx", "internal/options", "internal/placeholder", "internal/trust", "policy"},
	"access/ratelimit":   {"internal/metrics", "internal/monotime", "internal/options", "internal/placeholder", "internal/status", "internal/trust", "policy"},
	"access/requestid":   {"internal/httpx", "internal/options", "internal/trust", "policy"},
	"access/require":     {"access/identity", "internal/options", "internal/trust", "policy"},
	"access/security":    {"internal/httpx", "internal/options", "internal/trust", "policy"},
	"balance":            {"dockerupstreams", "internal/dialing", "internal/monotime", "internal/options", "internal/placeholder", "internal/trust"},
	"caddyfile":          {"dockerupstreams", "gateway", "gateway/operations", "internal/options", "internal/trust", "policy"}, // for the types of their options
	"cli":                {"bandwidth", "caddyfile", "internal/shutdown"},
	"cmd/rgate":          {"", "cli"},
	"dashboard":          {"bandwidth/store", "internal/options", "internal/status", "policy", "stats"},
	"demo/bandwidth":     {"demo/assert", "demo/docker"},
	"demo/chaos":         {"demo/docker"},
	"demo/run":           {"demo/assert", "demo/docker"},
	"dockerupstreams":    {"internal/dialing", "internal/entry", "internal/options", "internal/shutdown"},
	"gateway":            {"dockerupstreams", "gateway/operations", "gateway/routing", "gateway/upstream", "internal/entry", "internal/failure", "internal/httpx", "internal/logging", "internal/options", "internal/pause", "internal/placeholder", "internal/trust", "policy", "stats"},
	"gateway/routing":    {"internal/query"},
	"gateway/upstream":   {"dockerupstreams", "gateway/routing", "internal/dialing", "internal/entry", "internal/failure", "internal/httpx", "internal/monotime", "internal/options", "internal/trust", "policy"},
	"hack/bench-balance": {"balance"}, // a benchmark of the balancer
	"internal/dialing":   {"internal/failure", "internal/monotime"},
	"internal/entry":     {"internal/shutdown"},
	"internal/httpx":     {"internal/entry", "internal/monotime", "internal/query"},
	"internal/monotime":  {},
	"internal/query":     {},
	"internal/testkit":   {},
	"policy":             {"internal/entry", "internal/failure", "internal/logging", "internal/metrics", "internal/options", "internal/trust"},
	"stats":              {"internal/options", "internal/query", "internal/trust", "policy"},

	"bandwidth":              {"bandwidth/api", "bandwidth/notify", "bandwidth/scrape", "bandwidth/store", "internal/metrics", "internal/options", "internal/pause", "internal/placeholder", "internal/status", "policy", "stats"},
	"bandwidth/api":          {"bandwidth/store", "internal/options", "policy"},
	"bandwidth/notify":       {"bandwidth/store", "internal/metrics", "internal/options", "internal/pause", "internal/placeholder", "internal/status"},
	"bandwidth/scrape":       {"bandwidth/store", "internal/metrics", "internal/options", "internal/status"},
	"bandwidth/store":        {"internal/pause", "internal/shutdown", "internal/status", "stats"},
	"bandwidth/storetest":    {"stats"},
	"internal/pause":         {},
	"internal/lease":         {},
	"policy/policytest":      {"internal/options", "internal/testkit", "policy"},
	"gateway/operations":     {"dockerupstreams", "gateway/upstream", "internal/metrics", "internal/options", "internal/status", "policy", "stats"},
	"traffic/cache":          {"internal/failure", "internal/httpx", "internal/metrics", "internal/options", "internal/placeholder", "internal/status", "internal/trust", "policy", "traffic/httpcache", "traffic/sharing"},
	"traffic/circuitbreaker": {"internal/failure", "internal/httpx", "internal/lease", "internal/metrics", "internal/monotime", "internal/options", "internal/status", "policy"},
	"traffic/coalesce":       {"internal/failure", "internal/httpx", "internal/options", "internal/placeholder", "internal/trust", "policy", "traffic/httpcache", "traffic/sharing"},
	"traffic/concurrency":    {"internal/failure", "internal/httpx", "internal/lease", "internal/metrics", "internal/options", "internal/placeholder", "internal/status", "policy"},
	"traffic/fallback":       {"internal/failure", "internal/httpx", "internal/lease", "internal/options", "internal/placeholder", "internal/trust", "policy", "traffic/httpcache", "traffic/sharing"},
	"traffic/httpcache":      {},
	"traffic/sharing":        {"internal/httpx", "internal/options", "internal/placeholder", "internal/trust", "policy", "traffic/httpcache"},
	"traffic/transform":      {"internal/failure", "internal/httpx", "internal/options", "internal/placeholder", "internal/query", "internal/trust", "policy"},
	"internal/failure":       {"internal/entry", "internal/httpx", "internal/options"},
	"internal/placeholder":   {"internal/options", "internal/query", "internal/trust"},
	"internal/trust":         {"internal/entry", "internal/logging"},
	"internal/logging":       {},
	"internal/metrics":       {},
	"internal/options":       {},
	"internal/shutdown":      {},
	"internal/status":        {},
}

// allowedInTests lists additional imports of tests: fakes and modules under test. Package
// integration may import all packages, and all tests may import internal/testkit.
var allowedInTests = map[string][]string{
	"":                 {"policy"},
	"balance":          {"dockerupstreams/dockertest", "gateway"},
	"caddyfile":        {"access/apikey", "access/cors", "access/ipfilter", "access/jwt", "access/ratelimit", "access/requestid", "access/require", "access/security", "balance", "traffic/cache", "traffic/circuitbreaker", "traffic/coalesce", "traffic/concurrency", "traffic/fallback", "traffic/transform"},
	"dockerupstreams":  {"dockerupstreams/dockertest"},
	"bandwidth":        {"bandwidth/mailtest", "bandwidth/storetest"},
	"bandwidth/api":    {"bandwidth/scrape"},
	"bandwidth/notify": {"bandwidth/mailtest", "bandwidth/storetest"},
	"bandwidth/scrape": {"bandwidth/storetest"},
	"bandwidth/store":  {"bandwidth/storetest"},
	"dashboard":        {"bandwidth"},

	// Runs a gateway in the test process.
	"integration/stream":     {""},
	"traffic/circuitbreaker": {"policy/policytest"},
	"traffic/coalesce":       {"policy/policytest"},
	"traffic/concurrency":    {"policy/policytest"},
	"traffic/fallback":       {"policy/policytest", "traffic/circuitbreaker"},
	"policy":                 {"internal/httpx"},
}

// purePackages import neither Caddy nor Docker's client, so that they can be tested,
// fuzzed and benchmarked alone. They may import each other.
var purePackages = []string{
	"gateway/routing",
	"internal/lease", "internal/logging", "internal/monotime", "internal/pause", "internal/query", "internal/status", "traffic/httpcache",
}

// largePackages lists the packages with more files than maxFiles, and how many they have.
var largePackages = map[string]int{
	"dockerupstreams": 27,
	"gateway":         26,
	"stats":           25,
}

const (
	modulePath = "github.com/rgate/rgate"
	maxLines   = 450 // per file
	maxFiles   = 15  // per package, without tests
)

// sourceFile is a parsed Go file of the repository.
type sourceFile struct {
	path   string // relative to the root of the repository
	pkg    string // directory of the package; empty for the root
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
			return nil // the file was removed in the meantime
		}
		if err != nil {
			return err
		}
		tree, err := parser.ParseFile(fset, path, content, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		pkg := filepath.ToSlash(filepath.Dir(path))
		if pkg == "." {
			pkg = ""
		}
		files = append(files, &sourceFile{
			path: path, pkg: pkg, tree: tree,
			lines: fset.File(tree.Pos()).LineCount(), isTest: strings.HasSuffix(path, "_test.go"),
		})
		return nil
	})
	must(t, "reading the sources", err)
	if len(files) == 0 {
		t.Fatal("found no Go files")
	}
	return files
}

// packageOf returns the directory of an imported package, and reports whether the package
// is part of rgate.
func packageOf(path string) (pkg string, ours bool) {
	if path == modulePath {
		return "", true
	}
	return strings.CutPrefix(path, modulePath+"/")
}

func TestPackagesImportOnlyWhatIsAllowed(t *testing.T) {
	var used, usedInTests = make(map[[2]string]bool), make(map[[2]string]bool)
	for _, f := range sourceFiles(t) {
		for _, path := range f.imports() {
			pkg, ours := packageOf(path)
			if !ours || pkg == f.pkg {
				continue
			}
			switch {
			case slices.Contains(allowedImports[f.pkg], pkg):
				used[[2]string{f.pkg, pkg}] = used[[2]string{f.pkg, pkg}] || !f.isTest
			case f.isTest && (pkg == "internal/testkit" || f.pkg == "integration"):
			case f.isTest && slices.Contains(allowedInTests[f.pkg], pkg):
				usedInTests[[2]string{f.pkg, pkg}] = true
			default:
				t.Errorf("%s imports %s, which package %q may not: see allowedImports", f.path, path, f.pkg)
			}
		}
	}
	for name, list := range map[string]struct {
		allowed map[string][]string
		used    map[[2]string]bool
	}{"allowedImports": {allowedImports, used}, "allowedInTests": {allowedInTests, usedInTests}} {
		for from, all := range list.allowed {
			for _, pkg := range all {
				if !list.used[[2]string{from, pkg}] {
					t.Errorf("package %q does not import %q: remove it from %s", from, pkg, name)
				}
			}
		}
	}
}

func TestEveryPackageIsListed(t *testing.T) {
	for _, f := range sourceFiles(t) {
		top, _, _ := strings.Cut(f.pkg, "/")
		_, listed := allowedImports[f.pkg]
		outside := slices.Contains([]string{"demo", "hack", "integration"}, top) || slices.Contains([]string{"bandwidth/mailtest", "dockerupstreams/dockertest"}, f.pkg)
		if !listed && !outside {
			t.Errorf("%s is in a package without rules: add it to allowedImports", f.path)
		}
	}
}

// TestArchitecturePage compares the tables of packages and imports in the docs with the
// code.
func TestArchitecturePage(t *testing.T) {
	content, err := os.ReadFile("../docs/internals/architecture.md")
	must(t, "reading the page", err)
	page := string(content)
	quoted := regexp.MustCompile("`([^`]+)`")
	table := func(header string) (rows [][2][]string) {
		_, text, found := strings.Cut(page, "\n| Package | "+header+" |\n|---|---|\n")
		if !found {
			t.Fatalf("the page has no table of %s", header)
		}
		text, _, _ = strings.Cut(text, "\n\n")
		for line := range strings.SplitSeq(text, "\n") {
			var row [2][]string
			cells := strings.Split(line, "|")
			for i := range row {
				for _, m := range quoted.FindAllStringSubmatch(cells[i+1], -1) {
					row[i] = append(row[i], m[1])
				}
			}
			rows = append(rows, row)
		}
		return rows
	}
	for _, m := range regexp.MustCompile("`[a-z_/]+\\.go`[^]]").FindAllString(page, -1) {
		t.Errorf("%s is not a link, which a test would check", m)
	}
	listed := make(map[string]bool)
	for _, row := range table("What it does") {
		for _, name := range row[0] {
			if _, err := os.Stat("../" + name); err != nil {
				t.Errorf("the page lists %s, which does not exist", name)
			}
			listed[strings.TrimSuffix(name, "/")] = true
		}
	}
	imports := table("Imports, besides `internal`")
	used := make(map[string]bool)
	for pkg, allowed := range allowedImports {
		top, _, _ := strings.Cut(pkg, "/")
		switch {
		case pkg != "" && !listed[top] && !listed[pkg]:
			t.Errorf("the page does not list package %s", top)
		case slices.Contains([]string{"", "cmd", "demo", "hack", "internal"}, top) || strings.HasSuffix(pkg, "test"):
			continue
		}
		for _, imported := range allowed {
			found := strings.HasPrefix(imported, "internal/")
			for _, row := range imports {
				if !matchesAny(row[0], pkg) {
					continue
				}
				for _, pattern := range row[1] {
					if matchesAny([]string{pattern}, imported) {
						found, used[row[0][0]+" "+pattern] = true, true
					}
				}
			}
			if !found {
				t.Errorf("%s may import %s, and the page does not say so", pkg, imported)
			}
		}
	}
	for _, row := range imports {
		for _, pattern := range row[1] {
			if !used[row[0][0]+" "+pattern] {
				t.Errorf("the page says that %s imports %s, which it may not", row[0][0], pattern)
			}
		}
	}
}

// matchesAny reports whether a package matches any of the patterns.
func matchesAny(patterns []string, pkg string) bool {
	return slices.ContainsFunc(patterns, func(pattern string) bool {
		matched, _ := filepath.Match(pattern, pkg)
		return matched
	})
}

// Only engine.go may import Docker's client, so that it can be replaced. address.go uses
// only its names of environment variables.
func TestDockerClientIsBehindOneInterface(t *testing.T) {
	found := false
	for _, f := range sourceFiles(t) {
		if f.isTest || f.pkg != "dockerupstreams" {
			continue
		}
		for _, path := range f.imports() {
			if !strings.HasPrefix(path, "github.com/docker/docker/") {
				continue
			}
			switch filepath.Base(f.path) {
			case "engine.go":
				found = true
			case "address.go": // for the names of Docker's environment variables
				if path != "github.com/docker/docker/client" {
					t.Errorf("%s imports %s", f.path, path)
				}
			default:
				t.Errorf("%s imports %s, which only engine.go may", f.path, path)
			}
		}
	}
	if !found {
		t.Error("engine.go does not import Docker's client")
	}
}

func TestPurePackagesImportNoCaddy(t *testing.T) {
	found := make(map[string]bool)
	for _, f := range sourceFiles(t) {
		if f.isTest || !slices.Contains(purePackages, f.pkg) {
			continue
		}
		found[f.pkg] = true
		for _, path := range f.imports() {
			pkg, ours := packageOf(path)
			if ours && !slices.Contains(purePackages, pkg) || strings.HasPrefix(path, "github.com/caddyserver/") || strings.HasPrefix(path, "github.com/docker/") {
				t.Errorf("%s imports %s: %s must be usable without Caddy", f.path, path, f.pkg)
			}
		}
	}
	for _, pkg := range purePackages {
		if !found[pkg] {
			t.Errorf("package %s does not exist: remove it from purePackages", pkg)
		}
	}
}

func TestPackagesAreSmall(t *testing.T) {
	count := make(map[string]int)
	for _, f := range sourceFiles(t) {
		if _, ours := allowedImports[f.pkg]; ours && !f.isTest {
			count[f.pkg]++
		}
	}
	for pkg := range largePackages {
		if count[pkg] == 0 {
			t.Errorf("there is no package %s: remove it from largePackages", pkg)
		}
	}
	for pkg, files := range count {
		limit, large := largePackages[pkg]
		switch {
		case large && files < limit:
			t.Errorf("package %s has only %d files, not %d: correct largePackages", pkg, files, limit)
		case files > max(limit, maxFiles):
			t.Errorf("package %s has %d files: split it by idea into packages of at most %d files", pkg, files, max(limit, maxFiles))
		}
	}
}

func TestFilesAreShort(t *testing.T) {
	for _, f := range sourceFiles(t) {
		if f.lines > maxLines {
			t.Errorf("%s has %d lines: split it into files of at most %d lines", f.path, f.lines, maxLines)
		}
	}
}

// registrations lists the functions that init may call. Their effect does not depend on
// the order of package initialization.
var registrations = []string{
	"caddy.RegisterModule", "caddy.RegisterNetwork", "caddycmd.RegisterCommand", "caddyconfig.RegisterAdapter",
	"httpcaddyfile.RegisterDirective", "httpcaddyfile.RegisterHandlerDirective", "httpcaddyfile.RegisterDirectiveOrder",
}

func TestInitOnlyRegisters(t *testing.T) {
	count := 0
	for _, f := range sourceFiles(t) {
		if _, ours := allowedImports[f.pkg]; !ours || f.isTest {
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
					t.Errorf("%s: init may only register, and has %s", f.path, name)
				}
				// Directive order depends on the order of these calls, which is defined
				// only within a file.
				if name == "httpcaddyfile.RegisterDirectiveOrder" && f.path != "module.go" {
					t.Errorf("%s: the order of directives belongs in module.go", f.path)
				}
			}
		}
	}
	if count == 0 {
		t.Error("found no init function")
	}
}

// calledBy returns the function that a statement calls, as `package.Name`.
func calledBy(statement ast.Stmt) string {
	expr, ok := statement.(*ast.ExprStmt)
	if !ok {
		return "a statement other than a call"
	}
	call, ok := expr.X.(*ast.CallExpr)
	if !ok {
		return "a statement other than a call"
	}
	if selector, ok := call.Fun.(*ast.SelectorExpr); ok {
		if pkg, ok := selector.X.(*ast.Ident); ok {
			return pkg.Name + "." + selector.Sel.Name
		}
	}
	return "a call of a local function"
}
