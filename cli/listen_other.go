//go:build !linux

package cli

import "syscall"

type control func(network, address string, conn syscall.RawConn) error

// shareSocket returns first unchanged: TCP_DEFER_ACCEPT is specific to Linux.
func shareSocket(first control) control { return first }
