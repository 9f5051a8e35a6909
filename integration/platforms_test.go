package integration

import (
	"bytes"
	"encoding/json"
	"fmt"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// listedPackage is a package in the output of `go list -json`.
type listedPackage struct {
	ImportPath, Dir, Export string
	GoFiles                 []string
}

// goList returns packages of the repository and, with -deps, their dependencies.
func goList(t *testing.T, env string, args ...string) (all []listedPackage) {
	t.Helper()
	cmd := exec.Command("go", append([]string{"list", "-json=ImportPath,Dir,Export,GoFiles"}, args...)...)
	cmd.Dir, cmd.Env, cmd.Stderr = "..", append(os.Environ(), env), os.Stderr
	text, err := cmd.Output()
	must(t, "listing packages", err)
	for decoder := json.NewDecoder(bytes.NewReader(text)); ; {
		var one listedPackage
		if err := decoder.Decode(&one); err == io.EOF {
			return all
		} else if err != nil {
			t.Fatalf("listing packages: %v", err)
		}
		all = append(all, one)
	}
}

// An untyped constant overflowed an int on 32-bit platforms, such as a Raspberry Pi.
// `make lint` compiles the binary for each platform. Because that takes minutes without a
// build cache, the test checks the types of the repository's packages with the sizes of a
// 32-bit platform, against the dependencies of this platform.
func TestF5RgateCompilesForEveryPlatform(t *testing.T) {
	t.Parallel()
	script, err := os.ReadFile("../hack/platforms")
	must(t, "reading hack/platforms", err)
	for _, platform := range []string{"linux/amd64", "linux/arm64", "linux/arm", "linux/386", "darwin/arm64", "windows/amd64"} {
		if !strings.Contains(string(script), platform) {
			t.Errorf("hack/platforms does not compile for %s", platform)
		}
	}
	makefile, err := os.ReadFile("../Makefile")
	must(t, "reading the Makefile", err)
	if _, lint, _ := strings.Cut(string(makefile), "\nlint:"); !strings.Contains(strings.SplitN(lint, "\n\n", 2)[0], "hack/platforms") {
		t.Error("make lint does not compile for all platforms")
	}

	exports := make(map[string]string)
	for _, one := range goList(t, "GOFLAGS=", "-export", "-deps", "./cmd/rgate") {
		exports[one.ImportPath] = one.Export
	}
	fset := token.NewFileSet()
	dependencies := importer.ForCompiler(fset, "gc", func(path string) (io.ReadCloser, error) {
		if exports[path] == "" {
			return nil, fmt.Errorf("package %s is not compiled", path)
		}
		return os.Open(exports[path])
	})
	config := types.Config{Importer: dependencies, Sizes: types.SizesFor("gc", "386"), Error: func(err error) { t.Error(err) }}
	checked := 0
	for _, one := range goList(t, "GOARCH=386", "-deps", "./cmd/rgate") {
		if !strings.HasPrefix(one.ImportPath, modulePath) {
			continue
		}
		var files []*ast.File
		for _, name := range one.GoFiles {
			file, err := parser.ParseFile(fset, filepath.Join(one.Dir, name), nil, parser.SkipObjectResolution)
			must(t, "parsing a file", err)
			files = append(files, file)
		}
		_, _ = config.Check(one.ImportPath, fset, files, nil) // config.Error reports the errors
		checked++
	}
	if checked < 30 {
		t.Errorf("only %d packages were checked", checked)
	}
}
