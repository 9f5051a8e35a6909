//go:build !linux

package cli

import "syscall"

type control func(network, address string, conn syscall.RawConn) error

// shareSocket does nothing on this platform.
func shareSocket(first control) control { return first }
