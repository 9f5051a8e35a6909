package integration

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
)

// runCommands runs a snippet in a directory that contains the page's files.
func runCommands(t *testing.T, s *snippet, others []*snippet) error {
	folder := t.TempDir()
	for _, other := range others {
		if name := other.words["as"]; name != "" {
			must(t, "writing a snippet", os.WriteFile(filepath.Join(folder, name), []byte(other.text), 0o600))
		}
	}
	cmd := exec.CommandContext(t.Context(), "bash", "-c", s.text)
	cmd.Dir = folder
	cmd.Env = append(os.Environ(), "PATH="+filepath.Dir(binary)+":"+os.Getenv("PATH"),
		"HOME="+folder, "XDG_DATA_HOME="+folder, "XDG_CONFIG_HOME="+folder)
	output, err := cmd.CombinedOutput()
	if cmd.ProcessState == nil {
		return err
	}
	want := "0"
	if s.has("exit") {
		want = s.words["exit"]
	}
	if got := fmt.Sprint(cmd.ProcessState.ExitCode()); got != want {
		return fmt.Errorf("the status is %s, not %s, after\n%s", got, want, output)
	}
	if s.output != nil && strings.TrimSpace(string(output)) != strings.TrimSpace(s.output.text) {
		return fmt.Errorf("it prints\n%s\nnot\n%s", output, s.output.text)
	}
	return nil
}

// checkCommands checks that commands exist, without running them.
func checkCommands(t *testing.T, s *snippet) error {
	text := strings.ReplaceAll(s.text, "\\\n", " ")
	for line := range strings.SplitSeq(text, "\n") {
		line, _, _ = strings.Cut(line, "#")
		var words []string
		for word := range strings.FieldsSeq(line) {
			if len(words) > 0 || !strings.Contains(word, "=") { // skips environment variables before the command
				words = append(words, word)
			}
		}
		if len(words) == 0 {
			continue
		}
		if err := checkCommand(t, words); err != nil {
			return fmt.Errorf("%s: %w", strings.TrimSpace(line), err)
		}
	}
	return nil
}

func checkCommand(t *testing.T, words []string) error {
	switch name := words[0]; name {
	case "make":
		makefile, err := os.ReadFile("../Makefile")
		must(t, "reading the Makefile", err)
		for _, target := range words[1:] {
			if !strings.Contains(target, "=") && !strings.Contains(string(makefile), "\n"+target+":") {
				return fmt.Errorf("unknown target %s", target)
			}
		}
	case "rgate", "bin/rgate", "caddy", "bin/caddy":
		return checkFlags(t, strings.HasSuffix(name, "rgate"), words[1:])
	case "xcaddy":
		if !strings.Contains(strings.Join(words, " "), "--with github.com/rgate/rgate") {
			return errors.New("it builds something else")
		}
	case "cp", "cat", "curl", "docker", "git", "cd", "kill", "pkill", "export":
	default:
		return fmt.Errorf("unknown command %s: add it to checkCommands", name)
	}
	return nil
}

// checkFlags checks that the binary has a command with the given flags.
func checkFlags(t *testing.T, standAlone bool, words []string) error {
	var command, flags []string
	for _, word := range words {
		switch {
		case strings.HasPrefix(word, "-"):
			name, _, _ := strings.Cut(word, "=")
			flags = append(flags, name)
		case len(flags) == 0:
			command = append(command, word)
		}
	}
	if standAlone && (len(command) == 0 || strings.Contains("caddyfile hash-key healthcheck test-mail usage version reload", command[0])) {
		command = append([]string{"rgate"}, command...)
	}
	help, err := helpOf(t, strings.Join(command, " "))
	typed := strings.Replace("rgate "+strings.Join(command, " "), "rgate rgate", "rgate", 1)
	if err != nil || !strings.Contains(help, "\n  "+typed+" ") {
		return fmt.Errorf("unknown command %s", strings.Join(command, " "))
	}
	for _, flag := range flags {
		if !regexp.MustCompile(`(?m)^ +(-\w, +)?` + regexp.QuoteMeta(flag) + `\b`).MatchString(help) {
			return fmt.Errorf("the command %s has no flag %s", strings.Join(command, " "), flag)
		}
	}
	return nil
}

var helpTexts sync.Map // help text by command

func helpOf(t *testing.T, command string) (string, error) {
	if text, ok := helpTexts.Load(command); ok {
		return text.(string), nil
	}
	text, err := exec.CommandContext(t.Context(), binary, append(strings.Fields(command), "--help")...).CombinedOutput()
	if err == nil {
		helpTexts.Store(command, string(text))
	}
	return string(text), err
}
