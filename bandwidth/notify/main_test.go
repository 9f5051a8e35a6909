package notify

import (
	"os"
	"testing"

	"go.uber.org/goleak"

	"github.com/rgate/rgate/bandwidth/storetest"
)

func TestMain(m *testing.M) {
	// Caddy's packages start goroutines of their own when they are loaded.
	goleak.VerifyTestMain(m, goleak.IgnoreCurrent(), goleak.Cleanup(func(code int) {
		storetest.Stop()
		os.Exit(code)
	}))
}
