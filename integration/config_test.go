package integration

import (
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// wrong runs `rgate -c FILE -p PORT` with an invalid configuration. It checks that rgate
// exits with a one-line error, without listening, and returns the error.
func wrong(t *testing.T, file string, port int, env ...string) string {
	t.Helper()
	done := rgate(t, env, "-c", file, "-p", strconv.Itoa(port))
	message := strings.TrimSuffix(done.stderr, "\n")
	if done.code == 0 {
		t.Error("the exit code is 0, want another")
	}
	if done.stdout != "" || message == "" || strings.Contains(message, "\n") || !strings.HasPrefix(message, "rgate: ") {
		t.Errorf("it wrote %q to stdout and %q to stderr, want one message on stderr", done.stdout, done.stderr)
	}
	if strings.Contains(done.stderr, "server running") {
		t.Errorf("a port was opened: %s", done.stderr)
	}
	return message
}

func TestWrongConfigurations(t *testing.T) {
	t.Parallel()
	const fine = "routes: [{path_prefix: /api, backend: web}]\nbackends:\n  - name: web\n    match_labels: {app: web}\n"
	for name, tc := range map[string]struct {
		config string
		parts  []string // substrings of the message
	}{
		"empty":                {"", []string{":1:", "empty"}},
		"comments only":        {"# routes:\n", []string{":1:", "empty"}},
		"not YAML":             {"routes: [\nbackends: {\n", []string{".yaml:"}},
		"tabs":                 {"routes:\n\t- path_prefix: /\n", []string{":2:", "tab"}},
		"not a map":            {"- a\n", []string{":1:", "map"}},
		"unknown key":          {fine + "default_respons: {status_code: 404}\n", []string{":5:", "default_respons", "default_response"}},
		"unknown key inside":   {fine + "    timeout: {dial: 3s}\n", []string{":5:", "timeout", "timeouts"}},
		"repeated key":         {fine + "routes: []\n", []string{":5:", "routes"}},
		"undefined backend":    {strings.Replace(fine, "backend: web", "backend: wbe", 1), []string{":1:", `"wbe"`, `"web"`}},
		"backend twice":        {fine + "  - {name: web, match_labels: {app: web}}\n", []string{":5:", "web"}},
		"route twice":          {strings.Replace(fine, "}]", "}, {path_prefix: /api, backend: web}]", 1), []string{":1:", "/api"}},
		"no slash":             {strings.Replace(fine, "/api", "api", 1), []string{":1:", `"api"`, `"/api"`}},
		"wildcard":             {strings.Replace(fine, "/api", "/api/a*b", 1), []string{":1:", "/api/a*b", "whole segment"}},
		"no labels":            {strings.Replace(fine, "{app: web}", "{}", 1), []string{":4:", "match_labels"}},
		"label without value":  {strings.Replace(fine, "{app: web}", "[app]", 1), []string{":4:", "app"}},
		"labels and dial":      {fine + "    dial: [\"127.0.0.1:80\"]\n", []string{":5:", "dial", "match_labels"}},
		"neither":              {strings.Replace(fine, "    match_labels: {app: web}\n", "", 1), []string{":3:", "match_labels", "dial"}},
		"port":                 {fine + "    port: 70000\n", []string{":5:", "70000", "65535"}},
		"scheme":               {fine + "    scheme: htp\n", []string{":5:", `"htp"`, "http"}},
		"health":               {fine + "    health: good\n", []string{":5:", `"good"`, "healthy"}},
		"duration":             {fine + "    timeouts: {dial: 3}\n", []string{":5:", "dial"}},
		"no duration at all":   {fine + "    timeouts: {dial: soon}\n", []string{":5:", "soon"}},
		"policy":               {fine + "    lb_policy: randm\n", []string{":5:", "randm", "random"}},
		"status":               {fine + "default_response: {status_code: 99}\n", []string{":5:", "99", "200"}},
		"status as text":       {fine + "default_response: {status_code: teapot}\n", []string{":5:", "teapot"}},
		"listen":               {fine + "listen: 8080\n", []string{":5:", "8080", `":8080"`}},
		"admin":                {fine + "admin: http://localhost:2019\n", []string{":5:", "admin"}},
		"stats path":           {fine + "stats: {path: stats}\n", []string{":5:", "stats", `"/stats"`}},
		"docker host":          {fine + "docker: {host: /var/run/docker.sock}\n", []string{":5:", "/var/run/docker.sock", "unix://"}},
		"certificates missing": {fine + "docker: {host: \"tcp://127.0.0.1:1\", cert_path: /nowhere}\n", []string{"/nowhere"}},
		"option of the proxy":  {fine + "    proxy: {flush_intervall: -1}\n", []string{"flush_intervall"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			file := filepath.Join(t.TempDir(), "rgate.yaml")
			must(t, "writing the configuration", os.WriteFile(file, []byte(tc.config), 0o600))
			message := wrong(t, file, freePort(t))
			for _, part := range append(tc.parts, "rgate.yaml") {
				if !strings.Contains(message, part) {
					t.Errorf("got %q, want %q in it", message, part)
				}
			}
		})
	}
}

func TestWrongFiles(t *testing.T) {
	t.Parallel()
	missing := filepath.Join(t.TempDir(), "missing.yaml")
	folder := filepath.Join(t.TempDir(), "folder.yaml")
	must(t, "making a folder", os.Mkdir(folder, 0o700))
	for file, part := range map[string]string{missing: "does not exist", folder: "is a directory"} {
		message := wrong(t, file, freePort(t))
		if !strings.Contains(message, part) || !strings.Contains(message, file) {
			t.Errorf("got %q, want %q and the file's name in it", message, part)
		}
	}
}

func TestBusyPorts(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", ":0")
	must(t, "making a port busy", err)
	defer listener.Close()
	busy := listener.Addr().(*net.TCPAddr).Port
	file := filepath.Join(t.TempDir(), "rgate.yaml")
	write := func(config string) {
		must(t, "writing the configuration", os.WriteFile(file, []byte(config), 0o600))
	}
	inUse := []string{strconv.Itoa(busy), "in use"}

	write("admin: off\n")
	message := wrong(t, file, busy)
	for _, part := range append(inUse, "-p") {
		if !strings.Contains(message, part) {
			t.Errorf("a busy port: got %q, want %q in it", message, part)
		}
	}
	write("admin: localhost:" + strconv.Itoa(busy) + "\n")
	port := freePort(t)
	message = wrong(t, file, port)
	for _, part := range append(inUse, "admin") {
		if !strings.Contains(message, part) {
			t.Errorf("a busy port of the admin API: got %q, want %q in it", message, part)
		}
	}
	// If one of two addresses is in use, neither is opened.
	write("admin: off\nlisten: [\"127.0.0.1:" + strconv.Itoa(port) + "\", \":" + strconv.Itoa(busy) + "\"]\n")
	if done := rgate(t, nil, "-c", file); done.code == 0 || !strings.Contains(done.stderr, strconv.Itoa(busy)) {
		t.Errorf("one of two ports busy: got %d and %q", done.code, done.stderr)
	}
	for _, flag := range []string{"0", "-1", "65536"} {
		if done := rgate(t, nil, "-c", file, "-p", flag); done.code == 0 || !strings.Contains(done.stderr, "65535") {
			t.Errorf("-p %s: got %d and %q, want an error that says what is possible", flag, done.code, done.stderr)
		}
	}
}
