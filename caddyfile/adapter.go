// Package caddyfile translates rgate YAML into Caddy's JSON, and into a
// Caddyfile. The YAML has no schema of its own: its keys are the JSON keys of
// package gateway's configuration, checked against its types, plus the few that
// make a server around the gateway (`listen`, `admin`, `access_log`) and some
// shorter forms. Every error is reported with its file and line.
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

// Adapter adapts rgate YAML to Caddy JSON; it is registered as `rgate`.
type Adapter struct{}

// Adapt converts body to Caddy's JSON. The option `filename` is the file's name in errors,
// rgate.yaml by default. Every error is an *Error.
func (Adapter) Adapt(body []byte, options map[string]any) ([]byte, []caddyconfig.Warning, error) {
	filename, _ := options["filename"].(string)
	doc, r, err := read(body, filename)
	if err != nil {
		return nil, nil, err
	}
	config, err := doc.config(onNetwork(overridden(doc.Listen, int(port.Load()))))
	return config, r.warnings(doc), err
}

// Error is an error in a YAML file.
type Error struct {
	// The name of the file, as given.
	File string

	// The line, from 1.
	Line int

	// The error, and its remedy.
	Message string
}

func (e *Error) Error() string {
	return fmt.Sprintf("%s:%d: %s", e.File, e.Line, e.Message)
}

var port atomic.Int32

// OverridePort overrides the port of all configurations that are adapted from now on, so
// that a port of the command line also applies after a reload. Addresses keep their host,
// and equal ones are merged; sockets are not changed, but if a file has nothing else, the
// port is added on all interfaces. 0 ends the override.
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

// OverrideNetwork makes the gateways of all configurations that are adapted from now on
// listen on one of Caddy's registered networks instead of TCP. The empty name ends it.
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

// checkListen returns the error in an address to listen on, or nil.
func checkListen(address string) error {
	if strings.Contains(address, "{") {
		return nil // unknown until its placeholders are replaced
	}
	if _, rest, ok := strings.Cut(address, "://"); ok {
		return fmt.Errorf("is a URL: write %q", strings.TrimRight(rest, "/"))
	}
	if number, err := strconv.ParseUint(address, 10, 16); err == nil {
		return fmt.Errorf(`is a port without a colon: write ":%d"`, number)
	}
	addr, err := caddy.ParseNetworkAddress(address)
	switch {
	case err != nil || addr.Network == "":
		return fmt.Errorf(`is not an address: use ":8080" or "127.0.0.1:8080"`)
	case strings.HasPrefix(addr.Network, "udp"):
		return fmt.Errorf(`is a UDP address: remove %q: HTTP/3 uses the same port by default`, addr.Network+"/")
	case !addr.IsUnixNetwork() && !addr.IsFdNetwork() && addr.StartPort == 0:
		return fmt.Errorf("has no port: add one, such as %q", net.JoinHostPort(addr.Host, "8080"))
	}
	return nil
}

// Interface guards
var (
	_ caddyconfig.Adapter = Adapter{}
	_ error               = (*Error)(nil)
)
