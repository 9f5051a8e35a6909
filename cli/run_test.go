package cli

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestProbeFindsABusyAddress(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	busy := l.Addr().String()
	for _, test := range []struct{ config, want string }{
		{`{"admin": {"disabled": true}, "apps": {"http": {"servers": {"a": {"listen": ["` + busy + `"]}}}}}`, "choose another port with -p"},
		{`{"admin": {"listen": "` + busy + `"}}`, "set admin in the configuration"},
		{`{"admin": {"disabled": true}, "apps": {"http": {"servers": {"a": {"listen": ["udp/` + busy + `"]}}}}}`, ""},
		{`{"admin": {"disabled": true, "listen": "` + busy + `"}}`, ""},
		{`{"admin": {"disabled": true}, "apps": {"http": {"servers": {"a": {"listen": ["127.0.0.1:0"]}}}}}`, ""},
	} {
		err := probe([]byte(test.config))
		if test.want == "" {
			if err != nil {
				t.Errorf("%s: %v", test.config, err)
			}
			continue
		}
		if err == nil || !strings.Contains(explain(err), test.want) || !strings.Contains(explain(err), busy) {
			t.Errorf("%s: got %v, want a message with %q and %s", test.config, err, test.want, busy)
		}
	}
}

func TestExplain(t *testing.T) {
	_, missing := os.ReadFile(filepath.Join(t.TempDir(), "rgate.yaml"))
	for _, test := range []struct {
		err  error
		want string
	}{
		{errors.New("rgate.yaml:3: wrong"), "rgate.yaml:3: wrong"},
		{fmt.Errorf("reading: %w", missing), "rgate.yaml does not exist: set the path of the configuration with -c FILE"},
		{errors.New("loading new config: loading http app module: provision http: server srv0: loading module 'rgate': provision http.handlers.rgate: routes[0]: wrong"), "routes[0]: wrong"},
	} {
		if got := explain(test.err); !strings.HasSuffix(got, test.want) {
			t.Errorf("%v: got %q, want %q", test.err, got, test.want)
		}
	}
}

func TestRunRefusesAPortThatCannotBe(t *testing.T) {
	for _, test := range []struct {
		file string
		port int
		want string
	}{
		{"rgate.yaml", 0, "invalid port 0"},
		{"rgate.yaml", 70000, "invalid port 70000"},
		{"Caddyfile", 8080, "-p requires a YAML file: remove -p, and set the port in Caddyfile"},
	} {
		if err := run(test.file, test.port, true); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("-c %s -p %d: got %v, want %q", test.file, test.port, err, test.want)
		}
	}
}
