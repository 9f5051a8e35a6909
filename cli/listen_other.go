//go:build !linux

package cli

import "syscall"

type control func(network, address string, conn syscall.RawConn) error

// alsoDefer has no means to do anything on this platform.
func alsoDefer(first control) control { return first }
