package dockerupstreams

import (
	"cmp"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/docker/docker/client"

	"github.com/rgate/rgate/internal/options"
)

// address is an endpoint with the defaults applied. Endpoints with the same address
// share a watcher.
type address struct {
	host       string
	certPath   string // empty: no TLS, or no client certificate
	apiVersion string // empty: negotiated with the engine
	routed     string // the names of networks, separated by line feeds
	context    string // the context of the docker CLI, which is not used
	stop       stopOptions
	trust      time.Duration // 0: no limit
}

// protocols lists the supported URL schemes of an engine's address.
var protocols = []string{"unix", "npipe", "tcp", "http", "https"}

// Validate returns the first error in e. It neither connects nor reads the
// certificates.
func (e Endpoint) Validate() error {
	_, err := resolveEndpoint(e)
	return err
}

// resolveEndpoint applies the defaults to e and validates the result.
func resolveEndpoint(e Endpoint) (address, error) {
	at := address{
		host:       cmp.Or(e.Host, os.Getenv(client.EnvOverrideHost), client.DefaultDockerHost),
		certPath:   e.CertPath,
		apiVersion: os.Getenv(client.EnvOverrideAPIVersion),
		routed:     strings.Join(slices.Sorted(slices.Values(e.Routed)), "\n"),
		stop:       e.stopOptions(),
		trust:      time.Duration(e.Trust),
	}
	if e.Drain < options.TimeoutOff {
		return at, optionErrorf("drain", "invalid drain %s: must not be negative", time.Duration(e.Drain))
	}
	if e.Trust < 0 {
		return at, optionErrorf("trust", "invalid trust %s: must not be negative", time.Duration(e.Trust))
	}
	if e.Host == "" && os.Getenv(client.EnvOverrideHost) == "" {
		at.context = os.Getenv("DOCKER_CONTEXT")
	}
	protocol, rest, ok := strings.Cut(at.host, "://")
	if protocol == "ssh" {
		return at, fmt.Errorf("docker host %q is not supported: set host to tcp://HOST:2376 and cert_path, "+
			"so that the engine is known to be on another machine", redact(at.host))
	}
	if !ok || rest == "" || !slices.Contains(protocols, protocol) {
		return at, fmt.Errorf("invalid docker host %q: must be an address such as unix:///path/to/socket or tcp://host:port",
			redact(at.host))
	}
	if isLocal(protocol) {
		if e.CertPath != "" {
			return at, fmt.Errorf("docker host %q and cert_path cannot be combined: remove cert_path for a local socket", at.host)
		}
		return at, nil
	}
	if u, err := url.Parse(at.host); err != nil || u.Hostname() == "" {
		return at, fmt.Errorf("invalid docker host %q: must be %s://host:port", redact(at.host), protocol)
	}
	if at.certPath == "" && protocol != "http" && os.Getenv(client.EnvTLSVerify) != "" {
		at.certPath = os.Getenv(client.EnvOverrideCertPath)
		if home, err := os.UserHomeDir(); at.certPath == "" && err == nil {
			at.certPath = filepath.Join(home, ".docker") // the default of the docker CLI
		}
	}
	if protocol == "tcp" {
		at.host = withPort(at.host, at.certPath != "")
	}
	if at.certPath != "" && protocol == "http" {
		return at, fmt.Errorf("docker host %q and cert_path cannot be combined: use https:// or remove cert_path", redact(at.host))
	}
	return at, nil
}

// withPort returns host with the default port of an engine: 2376 with TLS, otherwise 2375.
func withPort(host string, tls bool) string {
	u, err := url.Parse(host)
	if err != nil || u.Port() != "" {
		return host
	}
	port := "2375"
	if tls {
		port = "2376"
	}
	u.Host = net.JoinHostPort(u.Hostname(), port)
	return u.String()
}

// String returns the host with the password redacted.
func (a address) String() string { return redact(a.host) }

// remoteHost returns the host name of an engine on another machine, or "" for a local
// one.
func (a address) remoteHost() string {
	u, err := url.Parse(a.host)
	if err != nil || isLocal(u.Scheme) {
		return ""
	}
	host := u.Hostname()
	if ip, err := netip.ParseAddr(host); host == "localhost" || (err == nil && ip.IsLoopback()) {
		return ""
	}
	return host
}

// isSocket reports whether the engine's address is a local socket.
func (a address) isSocket() bool {
	protocol, _, _ := strings.Cut(a.host, "://")
	return isLocal(protocol)
}

func isLocal(protocol string) bool { return protocol == "unix" || protocol == "npipe" }

func redact(host string) string {
	if u, err := url.Parse(host); err == nil {
		return u.Redacted()
	}
	if protocol, _, ok := strings.Cut(host, "://"); ok {
		return protocol + "://…"
	}
	return host
}
