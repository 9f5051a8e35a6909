package stats

import (
	"go/parser"
	"go/token"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	// Caddy packages start background goroutines on import.
	goleak.VerifyTestMain(m, goleak.IgnoreCurrent())
}

// TestCoreIsPure checks that the core imports neither HTTP servers nor metrics.
func TestCoreIsPure(t *testing.T) {
	for _, name := range []string{"counts.go", "sketch.go", "traffic.go", "account.go", "ring.go", "series.go", "recorder.go", "drain.go", "report.go"} {
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ImportsOnly)
		if err != nil {
			t.Fatal(err)
		}
		for _, imp := range file.Imports {
			path := strings.Trim(imp.Path.Value, `"`)
			if strings.Contains(path, "caddy") || strings.Contains(path, "prometheus") || path == "net/http" {
				t.Errorf("%s imports %s", name, path)
			}
		}
	}
}
