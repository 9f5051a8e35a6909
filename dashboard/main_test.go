package dashboard

import (
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	// Caddy packages start background goroutines on import.
	goleak.VerifyTestMain(m, goleak.IgnoreCurrent())
}
