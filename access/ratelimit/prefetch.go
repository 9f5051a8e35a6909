//go:build amd64 || arm64

package ratelimit

// prefetch has the processor load the 128 bytes at an address into its cache, and does
// not wait for them. An address where nothing is does no harm.
func prefetch(address uintptr)
