package cache

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestCacheRules runs the scripts in testdata/cache. They test the requirements of RFC
// 9111 and its extensions for a shared cache; see cacheRig.run.
func TestCacheRules(t *testing.T) {
	files, err := filepath.Glob("testdata/cache/*.txt")
	if err != nil {
		t.Fatal(err)
	}
	count := 0
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, text := range strings.Split(string(content), "\n# ")[1:] {
			name, script, _ := strings.Cut(text, "\n")
			count++
			t.Run(strings.TrimSuffix(filepath.Base(file), ".txt")+"/"+name, func(t *testing.T) {
				p := new(Cache)
				if options, rest, ok := strings.Cut(script, "\n"); ok && strings.HasPrefix(options, "options: ") {
					if err := json.Unmarshal([]byte(strings.TrimPrefix(options, "options: ")), p); err != nil {
						t.Fatal(err)
					}
					script = rest
				}
				cacheNewRig(t, p).run(script)
			})
		}
	}
	if count < 100 {
		t.Errorf("there are %d cases", count)
	}
}
