package caddyfile

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// For any input, the adapter does not panic, Caddy can decode the result, and errors
// have a message and a valid line number.
func FuzzAdapt(f *testing.F) {
	paths, err := filepath.Glob("testdata/*.rgatetest")
	if err != nil {
		f.Fatal(err)
	}
	for _, path := range paths {
		content, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		yaml, _, _ := strings.Cut(string(content), dashes)
		f.Add([]byte(yaml))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		result, _, err := Adapter{}.Adapt(body, map[string]any{"filename": "fuzz.yaml"})
		if err == nil {
			decodeGateway(t, result)
			return
		}
		var located *Error
		if !errors.As(err, &located) {
			t.Fatalf("the error has no place: %v", err)
		}
		if last := strings.Count(string(body), "\n") + 1; located.Line < 1 || located.Line > last || located.File != "fuzz.yaml" || located.Message == "" {
			t.Fatalf("the place of the error is wrong in a text of %d lines: %v", last, err)
		}
	})
}
