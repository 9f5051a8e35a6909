package cli

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// deferFor is the maximum time in seconds that the kernel waits for a client's first
// bytes.
const deferFor = 10

// control configures a socket before it listens.
type control func(network, address string, conn syscall.RawConn) error

// shareSocket sets TCP_DEFER_ACCEPT (tcp(7)), so that connections are accepted after
// the client has sent data. It also sets SO_REUSEPORT (socket(7)), so that a
// configuration loaded over the admin API can listen at the same address on plain TCP.
func shareSocket(first control) control {
	return func(network, address string, conn syscall.RawConn) error {
		if first != nil {
			if err := first(network, address, conn); err != nil {
				return err
			}
		}
		return conn.Control(func(descriptor uintptr) {
			// Errors are ignored: without the options, a reload may lose requests.
			_ = syscall.SetsockoptInt(int(descriptor), syscall.IPPROTO_TCP, syscall.TCP_DEFER_ACCEPT, deferFor)
			_ = syscall.SetsockoptInt(int(descriptor), syscall.SOL_SOCKET, unix.SO_REUSEPORT, 1)
		})
	}
}
