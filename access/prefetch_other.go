//go:build !amd64 && !arm64

package access

// prefetch does nothing on processors for which nobody has written it.
func prefetch(uintptr) {}
