// Package caddyfile converts rgate YAML to Caddy's JSON, and to a Caddyfile. The keys
// of the YAML are the JSON keys of package gateway's configuration, validated against
// its types. In addition, it supports keys for the server (`listen`, `admin`,
// `access_log`, `server`) and short forms. Errors contain the file and line.
package caddyfile

import (
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
)

func init() {
	caddyconfig.RegisterAdapter("rgate", Adapter{})
}

// Adapter adapts rgate YAML to Caddy JSON. It is registered as `rgate`.
type Adapter struct{}

// Adapt converts body to Caddy's JSON. The option `filename` sets the file name in
// errors (default: rgate.yaml). Errors about the file are of type *Error.
func (Adapter) Adapt(body []byte, options map[string]any) ([]byte, []caddyconfig.Warning, error) {
	filename, _ := options["filename"].(string)
	doc, r, err := read(body, filename)
	if err != nil {
		return nil, nil, err
	}
	config, err := doc.config(onNetwork(overridden(doc.Listen, int(port.Load()))))
	return config, r.warnings(doc), err
}

// Error is an error at a line of a YAML file.
type Error struct {
	// The name of the file, as passed to Adapt or Print.
	File string

	// The line number, starting at 1.
	Line int

	// The error message, with the remedy.
	Message string
}

func (e *Error) Error() string {
	return fmt.Sprintf("%s:%d: %s", e.File, e.Line, e.Message)
}

var port atomic.Int32

// OverridePort sets the port of all configurations that are adapted later, so that a
// port from the command line also applies after a reload. Listen addresses keep their
// host, and duplicates are merged. Unix sockets are unchanged. If a configuration has
// only sockets, the port is added on all interfaces. 0 removes the override.
func OverridePort(number int) {
	port.Store(int32(number))
}

func overridden(listen []string, port int) []string {
	if port == 0 {
		return listen
	}
	var addresses []string
	hasPort := false
	for _, address := range listen {
		network, host, _, err := caddy.SplitNetworkAddress(address)
		if err == nil && !caddy.IsUnixNetwork(network) && !caddy.IsFdNetwork(network) {
			hasPort = true
			address = caddy.JoinNetworkAddress(network, host, strconv.Itoa(port))
		}
		if !slices.Contains(addresses, address) {
			addresses = append(addresses, address)
		}
	}
	if !hasPort {
		addresses = append(addresses, net.JoinHostPort("", strconv.Itoa(port)))
	}
	return addresses
}

var network atomic.Pointer[string]

// OverrideNetwork sets the network that replaces TCP in the listen addresses of all
// configurations that are adapted later. The network must be registered with Caddy. An
// empty name removes the override.
func OverrideNetwork(name string) {
	network.Store(&name)
}

func onNetwork(listen []string) []string {
	name := network.Load()
	if name == nil || *name == "" {
		return listen
	}
	addresses := slices.Clone(listen)
	for i, address := range addresses {
		parsed, err := caddy.ParseNetworkAddress(address)
		if err == nil && parsed.Network == "tcp" {
			parsed.Network = *name
			addresses[i] = parsed.String()
		}
	}
	return addresses
}

// checkListen validates an address to listen on.
func checkListen(address string) error {
	if strings.Contains(address, "{") {
		return nil // cannot be validated before placeholders are replaced
	}
	if _, rest, ok := strings.Cut(address, "://"); ok {
		host, _, _ := strings.Cut(rest, "/")
		if _, _, err := net.SplitHostPort(host); err != nil {
			host = net.JoinHostPort(strings.Trim(host, "[]"), "8080")
		}
		return fmt.Errorf("must not be a URL: use an address such as %q", host)
	}
	if number, err := strconv.ParseUint(address, 10, 16); err == nil {
		return fmt.Errorf(`must have a colon before the port: use ":%d"`, number)
	}
	addr, err := caddy.ParseNetworkAddress(address)
	switch {
	case err != nil || addr.Network == "":
		return fmt.Errorf(`must be an address such as ":8080" or "127.0.0.1:8080"`)
	case strings.HasPrefix(addr.Network, "udp"):
		return fmt.Errorf(`must not be a UDP address: remove %q (HTTP/3 uses the same port by default)`, addr.Network+"/")
	case !addr.IsUnixNetwork() && !addr.IsFdNetwork() && addr.StartPort == 0:
		return fmt.Errorf("must have a port: use an address such as %q", net.JoinHostPort(addr.Host, "8080"))
	}
	return nil
}

// Interface guards
var (
	_ caddyconfig.Adapter = Adapter{}
	_ error               = (*Error)(nil)
)
