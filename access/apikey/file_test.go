package apikey

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"
)

// keyLine returns a key as a line of a key file.
func keyLine(name, key string) string {
	return fmt.Sprintf("- {name: %s, sha256: %s}\n", name, keyHash(key))
}

// keyFiling is a key file in a test with a fake clock.
type keyFiling struct {
	path string
	t    *testing.T
}

// write replaces the content of the file. The modification time is the fake clock's time.
func (f keyFiling) write(text string) {
	f.t.Helper()
	if err := os.WriteFile(f.path, []byte(text), 0o600); err != nil {
		f.t.Fatal(err)
	}
	f.date()
}

func (f keyFiling) date() {
	f.t.Helper()
	if err := os.Chtimes(f.path, time.Now(), time.Now()); err != nil {
		f.t.Fatal(err)
	}
}

// rename replaces the file by another file with the same size and modification time.
func (f keyFiling) rename(text string) {
	f.t.Helper()
	other := keyFiling{f.path + ".new", f.t}
	other.write(text)
	if err := os.Rename(other.path, f.path); err != nil {
		f.t.Fatal(err)
	}
}

// pass waits until the watcher has reloaded the file and considers it settled.
func (f keyFiling) pass() {
	time.Sleep(lookEvery + settledBy + time.Millisecond)
	synctest.Wait()
}

func (f keyFiling) watch(logger *zap.Logger) *keyFile {
	f.t.Helper()
	file, err := watchFile(f.path, logger)
	if err != nil {
		f.t.Fatal(err)
	}
	return file
}

// keyNames returns the consumers of the presented keys.
func keyNames(f *keyFile, presented ...string) string {
	names := make([]string, len(presented))
	for i, key := range presented {
		names[i] = "-"
		if held := f.find(key); held != nil {
			names[i] = held.who.Consumer
		}
	}
	return strings.Join(names, " ")
}

func TestKeyFileIsFollowed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys.yaml")
	core, logs := observer.New(zapcore.InfoLevel)
	const (
		read   = "reloaded API keys"
		broken = "reloading API keys failed, the previous keys stay valid"
	)
	one, two := keyLine("alice", "one"), keyLine("bob", "two")
	synctest.Test(t, func(t *testing.T) {
		f := keyFiling{path, t}
		f.write(one)
		file := f.watch(zap.New(core))
		defer file.close()
		for _, step := range []struct {
			what   string
			change func()
			names  string
			logs   []string
		}{
			{"nothing", func() {}, "alice -", nil},
			{"a key is added", func() { f.write(one + two) }, "alice bob", []string{read}},
			{"it is touched", f.date, "alice bob", nil},
			{"it is cut off", func() { f.write(one + two[:20]) }, "alice bob", []string{broken}},
			{"it is broken in another way", func() { f.write("") }, "alice bob", nil},
			{"it is removed", func() { os.Remove(path) }, "alice bob", nil},
			{"it is back as it was", func() { f.write(one + two) }, "alice bob", []string{read}},
			{"it is removed again", func() { os.Remove(path) }, "alice bob", []string{broken}},
			{"it is back with a key less", func() { f.write(two) }, "- bob", []string{read}},
			{"it is replaced", func() { f.rename(one) }, "alice -", []string{read}},
			{"another of the same size is put there", func() { f.rename(keyLine("clara", "one")) }, "clara -", []string{read}},
			{"it has no keys", func() { f.write("[]") }, "- -", []string{read}},
		} {
			step.change()
			f.pass()
			f.pass() // no further change
			if got := keyNames(file, "one", "two"); got != step.names {
				t.Errorf("when %s, the keys are of %q, want %q", step.what, got, step.names)
			}
			var messages []string
			for _, entry := range logs.TakeAll() {
				messages = append(messages, entry.Message)
			}
			if !slices.Equal(messages, step.logs) {
				t.Errorf("when %s, the log has %q, want %q", step.what, messages, step.logs)
			}
		}
	})
}

// TestKeyFileChangesTwiceAtOnce checks that a change is detected even if size and
// modification time stay the same, because it directly follows another change.
func TestKeyFileChangesTwiceAtOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys.yaml")
	synctest.Test(t, func(t *testing.T) {
		f := keyFiling{path, t}
		f.write(keyLine("alice", "one"))
		file := f.watch(zap.NewNop())
		defer file.close()
		f.write(keyLine("clara", "one"))
		f.pass()
		if got := keyNames(file, "one"); got != "clara" {
			t.Errorf("the key is of %q", got)
		}
	})
}

func TestKeyFileIsShared(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys.yaml")
	synctest.Test(t, func(t *testing.T) {
		f := keyFiling{path, t}
		if _, err := watchFile(path, zap.NewNop()); err == nil || !strings.Contains(err.Error(), "no such file") {
			t.Errorf("a missing file: got %v", err)
		}
		f.write("- name")
		if _, err := watchFile(path, zap.NewNop()); err == nil || !strings.Contains(err.Error(), "keys.yaml: line 1") {
			t.Errorf("a broken file: got %v", err)
		}
		f.write(keyLine("alice", "one"))
		first, second := f.watch(zap.NewNop()), f.watch(zap.NewNop())
		if first != second {
			t.Error("a file is followed twice")
		}
		f.write(keyLine("clara", "one"))
		third := f.watch(zap.NewNop())
		if got := keyNames(first, "one"); got != "clara" {
			t.Errorf("who comes later finds the key of %q", got)
		}
		f.write("- name")
		if _, err := watchFile(path, zap.NewNop()); err == nil || !strings.Contains(err.Error(), "keys.yaml: line 1") {
			t.Errorf("a file that is broken now: got %v", err)
		}
		for _, file := range []*keyFile{first, second, third} {
			if err := file.close(); err != nil {
				t.Error(err)
			}
		}
		if references, held := keyFiles.References(first.path); held || references != 0 {
			t.Errorf("%d use the file still", references)
		}
	})
}
