package cli

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// deferFor is how many seconds the kernel waits for a client's first bytes before
// it gives the connection away all the same.
const deferFor = 10

// control configures a socket before it listens.
type control func(network, address string, conn syscall.RawConn) error

// alsoLasting makes the kernel keep a connection to itself until its client has sent
// something (tcp(7), TCP_DEFER_ACCEPT), and lets Caddy's own sockets listen beside this
// one (socket(7), SO_REUSEPORT): a configuration that is loaded over the admin API, and
// names plain TCP, takes the place of one that does not.
func alsoLasting(first control) control {
	return func(network, address string, conn syscall.RawConn) error {
		if first != nil {
			if err := first(network, address, conn); err != nil {
				return err
			}
		}
		return conn.Control(func(descriptor uintptr) {
			// Where the kernel refuses, a reload may lose a request that was on its way.
			_ = syscall.SetsockoptInt(int(descriptor), syscall.IPPROTO_TCP, syscall.TCP_DEFER_ACCEPT, deferFor)
			_ = syscall.SetsockoptInt(int(descriptor), syscall.SOL_SOCKET, unix.SO_REUSEPORT, 1)
		})
	}
}
