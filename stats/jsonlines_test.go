package stats

import (
	"bufio"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/rgate/rgate/internal/testkit"
)

func jsonLines(t *testing.T, j *JSONLines) *JSONLines {
	t.Helper()
	if err := j.Provision(caddy.Context{}); err != nil {
		t.Fatal(err)
	}
	if err := j.Validate(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := j.Close(); err != nil {
			t.Error(err)
		}
	})
	return j
}

func readLines(t *testing.T, name string) (lines []map[string]any) {
	t.Helper()
	file, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for scanner := bufio.NewScanner(file); scanner.Scan(); {
		var line map[string]any
		if err := json.Unmarshal(scanner.Bytes(), &line); err != nil {
			t.Fatalf("%v in line %q", err, scanner.Text())
		}
		lines = append(lines, line)
	}
	return lines
}

func snapshotOf(routes ...string) Snapshot {
	rec := NewRecorder("g")
	for _, route := range routes {
		rec.Series(route, "b").Record(200, 2*time.Millisecond)
	}
	return rec.Snapshot()
}

func TestEachSeriesIsALine(t *testing.T) {
	name := filepath.Join(t.TempDir(), "made", "on", "demand", "stats.jsonl")
	j := jsonLines(t, &JSONLines{Filename: name})
	for range 2 {
		if err := j.Write(t.Context(), snapshotOf("/a", "/b")); err != nil {
			t.Fatal(err)
		}
	}
	lines := readLines(t, name)
	if len(lines) != 4 {
		t.Fatalf("%d lines, want 4", len(lines))
	}
	line := lines[1]
	if line["route"] != "/b" || line["gateway"] != "g" || line["backend"] != "b" ||
		line["codes"].(map[string]any)["200"] != 1.0 ||
		line["requests_count"].(map[string]any)["success"] != 1.0 ||
		line["latency_ms"].(map[string]any)["average"] != 2.0 {
		t.Errorf("the line says %v", line)
	}
	if _, err := time.Parse(time.RFC3339Nano, line["time"].(string)); err != nil {
		t.Error(err)
	}
	if info, err := os.Stat(name); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file is %v, %v", info.Mode(), err)
	}
}

func TestWritingResumesWhenTheDiskWorksAgain(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "dir")
	if err := os.WriteFile(dir, nil, 0o600); err != nil { // a file at the path of the directory
		t.Fatal(err)
	}
	name := filepath.Join(dir, "stats.jsonl")
	j := jsonLines(t, &JSONLines{Filename: name})
	for range 2 {
		if err := j.Write(t.Context(), snapshotOf("/a")); err == nil {
			t.Fatal("no error although there is no directory")
		}
	}
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	if err := j.Write(t.Context(), snapshotOf("/a")); err != nil {
		t.Fatal(err)
	}
	if n := len(readLines(t, name)); n != 1 {
		t.Errorf("%d lines, want 1", n)
	}
}

func TestALineThatWasCutOffDoesNotSpoilTheNext(t *testing.T) {
	name := filepath.Join(t.TempDir(), "stats.jsonl")
	if err := os.WriteFile(name, []byte(`{"time":"20`), 0o600); err != nil {
		t.Fatal(err)
	}
	j := jsonLines(t, &JSONLines{Filename: name})
	if err := j.Write(t.Context(), snapshotOf("/a")); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if lines := strings.Split(string(text), "\n"); len(lines) != 3 || !json.Valid([]byte(lines[1])) {
		t.Errorf("the file is %q", text)
	}
}

func TestLargeFilesAreRolledAndOldOnesRemoved(t *testing.T) {
	dir := t.TempDir()
	j := jsonLines(t, &JSONLines{Filename: filepath.Join(dir, "stats.jsonl"), RollSizeMB: 1, RollKeep: 1})
	snap := snapshotOf("/" + strings.Repeat("x", 300_000))
	for range 16 { // three lines per file
		if err := j.Write(t.Context(), snap); err != nil {
			t.Fatal(err)
		}
	}
	testkit.Eventually(t, "one rolled file is left, compressed", func() bool {
		names, err := filepath.Glob(filepath.Join(dir, "*"))
		if err != nil {
			t.Fatal(err)
		}
		return len(names) == 2 && strings.HasSuffix(names[0], ".gz") != strings.HasSuffix(names[1], ".gz")
	})
}

// TestOneFileIsSharedUntilTheLastLetsGo checks that during a reload, the old and the new
// configuration write to the same file.
func TestOneFileIsSharedUntilTheLastLetsGo(t *testing.T) {
	name := filepath.Join(t.TempDir(), "stats.jsonl")
	old, fresh := jsonLines(t, &JSONLines{Filename: name}), jsonLines(t, &JSONLines{Filename: name})
	for _, j := range []*JSONLines{old, fresh} {
		if err := j.Write(t.Context(), snapshotOf("/a")); err != nil {
			t.Fatal(err)
		}
	}
	if old.file != fresh.file {
		t.Error("the file is open twice")
	}
	if err := old.Close(); err != nil {
		t.Fatal(err)
	}
	if err := fresh.Write(t.Context(), snapshotOf("/b")); err != nil {
		t.Fatal(err)
	}
	file := fresh.file
	if err := fresh.Close(); err != nil {
		t.Fatal(err)
	}
	if file.out != nil {
		t.Error("the file is open although it was released")
	}
	if n := len(readLines(t, name)); n != 3 {
		t.Errorf("%d lines, want 3", n)
	}
}

func TestWritingStopsWithItsContext(t *testing.T) {
	j := jsonLines(t, &JSONLines{Filename: filepath.Join(t.TempDir(), "stats.jsonl")})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := j.Write(ctx, snapshotOf("/a")); err == nil {
		t.Error("no error although the context is done")
	}
}

func TestJSONLinesSaysWhatIsWrong(t *testing.T) {
	for says, j := range map[string]*JSONLines{
		"filename is required":    {},
		"invalid roll_size_mb -1": {Filename: "x", RollSizeMB: -1},
		"invalid roll_keep -1":    {Filename: "x", RollKeep: -1},
		"resolving filename":      {Filename: "{env.SURELY_NOT_SET_ANYWHERE}"},
		"resolving filename of ":  {Filename: "{http.request.host}"},
	} {
		err := j.Provision(caddy.Context{})
		if err == nil {
			err = j.Validate()
		}
		if err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("got %v, want %q", err, says)
		}
	}
}
