//go:build !amd64 && !arm64

package ratelimit

// prefetch does nothing on processors for which nobody has written it.
func prefetch(uintptr) {}
