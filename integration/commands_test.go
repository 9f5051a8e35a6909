package integration

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"testing"
)

func TestVersion(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"version"}, {"--version"}, {"-v"}} {
		done := rgate(t, nil, args...)
		if done.code != 0 || !regexp.MustCompile(`^rgate \S+ \(Caddy v2\.\d+\.\d+, go1\.\d+\S* \S+/\S+\)\n$`).MatchString(done.stdout) {
			t.Errorf("rgate %v: got %d, %q and %q, want the versions of rgate, Caddy and Go", args, done.code, done.stdout, done.stderr)
		}
	}
}

func TestHelp(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"--help"}, {"-h"}, {"help"}} {
		done := rgate(t, nil, args...)
		for _, want := range []string{"API gateway for Docker", "rgate -c rgate.yaml -p 8080", "validate", "reload"} {
			if done.code != 0 || !strings.Contains(done.stdout, want) {
				t.Errorf("rgate %v: got %d and a text without %q", args, done.code, want)
			}
		}
	}
	if done := rgate(t, nil, "hash-key", "--help"); done.code != 0 || !strings.Contains(done.stdout, "  rgate hash-key [") {
		t.Errorf("the help of a command: got %d and %s", done.code, done.stdout)
	}
	for _, args := range [][]string{{"usage", "extra"}, {"reload", "extra"}, {"test-mail", "extra"}} {
		want := fmt.Sprintf("unknown command \"extra\" for \"rgate %s\"", args[0])
		if done := rgate(t, nil, args...); done.code == 0 || !strings.Contains(done.stderr, want) {
			t.Errorf("%v: got %d and %q, want %s", args, done.code, done.stderr, want)
		}
	}
	if done := rgate(t, nil, "--prot", "8080"); done.code == 0 || !strings.Contains(done.stderr, "--prot") {
		t.Errorf("an unknown flag: got %d and %q, want an error that names it", done.code, done.stderr)
	}
	if done := rgate(t, nil); done.code == 0 || !strings.Contains(done.stderr, "rgate.yaml does not exist") {
		t.Errorf("rgate alone: got %d and %q, want an error about rgate.yaml", done.code, done.stderr)
	}
}

func TestValidateAndAdapt(t *testing.T) {
	t.Parallel()
	const config = "routes: [{path_prefix: /, backend: web}]\nbackends: [{name: web, match_labels: {app: web}}]\n"
	right := writeFile(t, "rgate.yaml", config)
	wrong := writeFile(t, "rgate.yaml", config+"stat: {path: /stats}\n")
	for _, flag := range []string{"--config", "-c"} {
		if done := rgate(t, nil, "validate", flag, right); done.code != 0 {
			t.Errorf("validate %s of a right file: got %d and %s", flag, done.code, done.stderr)
		}
		done := rgate(t, nil, "validate", flag, wrong)
		if done.code == 0 || !strings.Contains(done.stderr, "rgate.yaml:3:") || !strings.Contains(done.stderr, "stats") {
			t.Errorf("validate %s of a wrong file: got %d and %q, want an error with its line and the right word", flag, done.code, done.stderr)
		}
		done = rgate(t, nil, "adapt", flag, right)
		var adapted struct {
			Apps struct {
				HTTP struct {
					Servers map[string]struct {
						Listen []string
						Routes []struct{ Handle []struct{ Handler string } }
					}
				}
			}
		}
		if err := json.Unmarshal([]byte(done.stdout), &adapted); done.code != 0 || err != nil {
			t.Errorf("adapt %s: got %d, %v and %s", flag, done.code, err, done.stderr)
			continue
		}
		server := adapted.Apps.HTTP.Servers["srv0"]
		if len(server.Listen) != 1 || server.Listen[0] != ":8080" || server.Routes[0].Handle[0].Handler != "rgate" {
			t.Errorf("adapt %s: got %s, want a server on :8080 with the handler rgate", flag, done.stdout)
		}
	}
}

func TestHealthcheck(t *testing.T) {
	t.Parallel()
	g := startGateway(t, "default_response: {status_code: 200}\nroutes: [{path_prefix: /down, backend: web}]\nbackends: [{name: web, match_labels: {app_name: $APP}}]\n")
	admin := fmt.Sprintf("CADDY_ADMIN=localhost:%d", g.admin)
	check := func(want int, env []string, args ...string) {
		t.Helper()
		done := rgate(t, env, append([]string{"healthcheck"}, args...)...)
		if done.code != want {
			t.Errorf("healthcheck %v: got %d and %q, want %d", args, done.code, done.stderr, want)
		}
		if want != 0 && !strings.HasPrefix(done.stderr, "rgate: requesting ") {
			t.Errorf("healthcheck %v: got the message %q", args, done.stderr)
		}
	}
	check(0, []string{admin})
	check(0, nil, "--url", g.url("/"))
	check(1, nil, "--url", g.url("/down"))
	g.end(t)
	check(1, []string{admin})
	check(1, nil, "--url", g.url("/"))
}
