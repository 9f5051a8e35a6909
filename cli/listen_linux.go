package cli

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// deferFor is how many seconds the kernel waits for a client's first bytes before it
// passes the connection on anyway.
const deferFor = 10

// control configures a socket before it listens.
type control func(network, address string, conn syscall.RawConn) error

// shareSocket makes the kernel hold a connection back until its client has sent data
// (tcp(7), TCP_DEFER_ACCEPT), and lets Caddy's own sockets listen at the same address
// (socket(7), SO_REUSEPORT): a configuration loaded over the admin API may use plain TCP.
func shareSocket(first control) control {
	return func(network, address string, conn syscall.RawConn) error {
		if first != nil {
			if err := first(network, address, conn); err != nil {
				return err
			}
		}
		return conn.Control(func(descriptor uintptr) {
			// If this fails, a reload may lose a request that was on its way.
			_ = syscall.SetsockoptInt(int(descriptor), syscall.IPPROTO_TCP, syscall.TCP_DEFER_ACCEPT, deferFor)
			_ = syscall.SetsockoptInt(int(descriptor), syscall.SOL_SOCKET, unix.SO_REUSEPORT, 1)
		})
	}
}
