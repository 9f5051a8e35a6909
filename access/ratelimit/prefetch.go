//go:build amd64 || arm64

package ratelimit

// prefetch loads the 128 bytes at an address into the cache without waiting. Invalid
// addresses do no harm.
func prefetch(address uintptr)
