package bandwidth

import (
	"os"
	"testing"

	"go.uber.org/goleak"

	"github.com/rgate/rgate/bandwidth/storetest"
)

func TestMain(m *testing.M) {
	// Caddy packages start background goroutines on import.
	goleak.VerifyTestMain(m, goleak.IgnoreCurrent(), goleak.Cleanup(func(code int) {
		storetest.Stop()
		os.Exit(code)
	}))
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
