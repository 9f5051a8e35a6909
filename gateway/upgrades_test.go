package gateway

import (
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/rgate/rgate/internal/logging"
)

func TestRemovedUpgradesAreLoggedOnce(t *testing.T) {
	core, logs := observer.New(zap.WarnLevel)
	g := new(Gateway)
	g.logger, g.dropped = zap.New(core), new(logging.OnceEach[droppedUpgrade])
	for _, protocol := range []string{"MQTT", "mqtt", "h2c", "HTTP/3.0"} {
		g.logDropped(protocol, "r", "b")
	}
	const addable, bypassing = "removed a protocol from the Upgrade field: to forward it, add it to upgrades of the backend",
		"removed a protocol from the Upgrade field: its requests would bypass the policies"
	want := [][2]string{{addable, "mqtt"}, {bypassing, "h2c"}, {bypassing, "http/3.0"}}
	if logs.Len() != len(want) {
		t.Fatalf("got %v", logs.All())
	}
	for i, entry := range logs.All() {
		if got := [2]string{entry.Message, entry.ContextMap()["upgrade"].(string)}; got != want[i] {
			t.Errorf("got %q, want %q", got, want[i])
		}
	}
}
