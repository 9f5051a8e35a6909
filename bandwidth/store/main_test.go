package store

import (
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/rgate/rgate/bandwidth/storetest"
)

func TestMain(m *testing.M) {
	// Caddy's packages start goroutines of their own when they are loaded.
	goleak.VerifyTestMain(m, goleak.IgnoreCurrent(), goleak.Cleanup(func(code int) {
		storetest.Stop()
		removeBigStore()
		os.Exit(code)
	}))
}

// eventually polls a condition until it holds.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !holds(); {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain: %s", what)
		}
		time.Sleep(time.Millisecond)
	}
}
