package dockerupstreams

import (
	"cmp"
	"fmt"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/docker/docker/client"
)

// address is an endpoint with its defaults filled in. Endpoints with the same
// address share one watcher.
type address struct {
	host       string
	certPath   string // empty: no TLS, or without certificates of our own
	apiVersion string // empty: to be agreed on with the engine
}

// The protocols by which an engine can be reached.
var protocols = []string{"unix", "npipe", "tcp", "http", "https"}

// Validate reports what is wrong with e, and what would be right. It connects to
// nothing, and does not look for the certificates.
func (e Endpoint) Validate() error {
	_, err := resolveEndpoint(e)
	return err
}

// resolveEndpoint fills in the defaults and checks that they make sense.
func resolveEndpoint(e Endpoint) (address, error) {
	at := address{
		host:       cmp.Or(e.Host, os.Getenv(client.EnvOverrideHost), client.DefaultDockerHost),
		certPath:   e.CertPath,
		apiVersion: os.Getenv(client.EnvOverrideAPIVersion),
	}
	protocol, rest, ok := strings.Cut(at.host, "://")
	if !ok || rest == "" || !slices.Contains(protocols, protocol) {
		return at, fmt.Errorf("docker host %q is not an address: write it as unix:///path/to/socket or tcp://host:port",
			redact(at.host))
	}
	if isLocal(protocol) {
		if e.CertPath != "" {
			return at, fmt.Errorf("docker host %q is a local socket and has no use for cert_path: leave it out", at.host)
		}
		return at, nil
	}
	if u, err := url.Parse(at.host); err != nil || u.Hostname() == "" {
		return at, fmt.Errorf("docker host %q has no valid host and port: write it as %s://host:port", redact(at.host), protocol)
	}
	if at.certPath == "" && protocol != "http" && os.Getenv(client.EnvTLSVerify) != "" {
		at.certPath = os.Getenv(client.EnvOverrideCertPath)
		if home, err := os.UserHomeDir(); at.certPath == "" && err == nil {
			at.certPath = filepath.Join(home, ".docker") // where the docker command keeps them
		}
	}
	if at.certPath != "" && protocol == "http" {
		return at, fmt.Errorf("docker host %q is plain HTTP and has no use for cert_path: write https://, or leave it out", redact(at.host))
	}
	return at, nil
}

// String is the host, without a password if somebody put one into it.
func (a address) String() string { return redact(a.host) }

// remoteHost is the machine on which the engine runs, if it is another one.
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
