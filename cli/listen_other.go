//go:build !linux

package cli

import "syscall"

type control func(network, address string, conn syscall.RawConn) error

// alsoLasting has no means to do anything on this platform.
func alsoLasting(first control) control { return first }
