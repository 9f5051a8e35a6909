package jwt

import (
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	// Caddy's packages start goroutines of their own when they are loaded.
	goleak.VerifyTestMain(m, goleak.IgnoreCurrent())
}
