package dialing

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"
)

// CheckConnections makes a transport check its new connections. Connections that check
// rejects are closed and count as failed dials. Connections to a forward proxy are not
// checked. dial is the address of the upstream.
func CheckConnections(t *reverseproxy.HTTPTransport, check func(dial string, conn net.Conn) error) {
	checked := func(connect func(context.Context, string, string) (net.Conn, error)) func(context.Context, string, string) (net.Conn, error) {
		return func(ctx context.Context, network, address string) (net.Conn, error) {
			conn, err := connect(ctx, network, address)
			if err != nil {
				return nil, err
			}
			info, ok := reverseproxy.GetDialInfo(ctx)
			if !ok || info.Upstream == nil || !strings.HasPrefix(address, net.JoinHostPort(info.Host, "")) && t.ProxyProtocol == "" {
				return conn, nil // health check or forward proxy
			}
			if err := check(info.Upstream.Dial, conn); err != nil {
				_ = conn.Close()
				return nil, reverseproxy.NewDialError(err)
			}
			return conn, nil
		}
	}
	t.Transport.DialContext = checked(t.Transport.DialContext)
	if t.Transport.DialTLSContext != nil {
		t.Transport.DialTLSContext = checked(t.Transport.DialTLSContext)
	}
}

// CheckLocal returns an error if a connection to a container leads back to this process.
// labeled reports whether the address is from a label of the container. Such an address
// must not be a loopback, link-local or multicast address either.
func CheckLocal(conn net.Conn, labeled bool) error {
	remote, ok := conn.RemoteAddr().(*net.TCPAddr)
	if !ok {
		return nil
	}
	ip := remote.IP
	if labeled && (ip.IsLoopback() || ip.IsUnspecified() || ip.IsMulticast() || ip.IsLinkLocalUnicast()) {
		return fmt.Errorf("the label rgate.address leads to %s, which is a loopback, link-local or multicast address: "+
			"set the label to an address of the container, or the option include to [local_addresses]", ip)
	}
	local, ok := conn.LocalAddr().(*net.TCPAddr)
	if !ok || !ip.IsLoopback() && !ip.Equal(local.IP) || !listensOn(ip, remote.Port) {
		return nil
	}
	label := "rgate.port"
	if labeled {
		label = "rgate.address"
	}
	return fmt.Errorf("the address %s of the container belongs to a listener of this gateway: "+
		"correct the label %s, or set the option include to [local_addresses]", remote, label)
}

// listensOn reports whether this process listens on a TCP address of this machine.
func listensOn(ip net.IP, port int) bool {
	number := strconv.Itoa(port)
	for _, host := range []string{"", "0.0.0.0", "::", "localhost", ip.String()} {
		for _, network := range []string{"tcp", "tcp4", "tcp6"} {
			if caddy.ListenerUsage(network, net.JoinHostPort(host, number)) > 0 {
				return true
			}
		}
	}
	app, err := caddy.ActiveContext().AppIfConfigured("http")
	if err != nil {
		return false
	}
	for _, server := range app.(*caddyhttp.App).Servers { // may use other networks
		for _, listener := range server.Listeners() {
			at, ok := listener.Addr().(*net.TCPAddr)
			if ok && at.Port == port && (at.IP.IsUnspecified() || at.IP.Equal(ip)) {
				return true
			}
		}
	}
	return false
}
