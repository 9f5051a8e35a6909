package integration

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

// echoes reports whether a connection sends back what it gets.
func echoes(conn net.Conn, reader *bufio.Reader) bool {
	if _, err := io.WriteString(conn, "hello"); err != nil {
		return false
	}
	got := make([]byte, len("hello"))
	_, err := io.ReadFull(reader, got)
	return err == nil && string(got) == "hello"
}

// A reload closed all WebSockets at once.
func TestF3WebSocketsSurviveReloads(t *testing.T) {
	t.Parallel()
	b := startEndlessBackend(t)
	const config = `
routes: [{path_prefix: /, backend: web}, {path_prefix: /short, backend: short, strip_prefix: true}]
backends:
- {name: web, dial: ["$DIAL"], upgrades: [websocket, other]}
- {name: short, dial: ["$DIAL"], proxy: {stream_close_delay: 1ms}}
`
	g := startGateway(t, strings.ReplaceAll(config, "$DIAL", b.dial()))
	conn, reader := rawStart(t, g, switchToWebSocket, "101")
	other, otherReader := rawStart(t, g, strings.Replace(switchToWebSocket, "websocket", "other", 1), "101")
	_, short := rawStart(t, g, strings.Replace(switchToWebSocket, "/switch", "/short/switch", 1), "101")
	_, events := rawStart(t, g, "GET /events HTTP/1.1\r\nHost: x\r\n\r\n", "200")
	g.reload(t)
	if got, _ := io.ReadAll(short); !strings.Contains(string(got), goingAway) {
		t.Errorf("after the delay of its backend, a WebSocket got %q, want a close frame with 1001", got)
	}
	later, laterReader := rawStart(t, g, switchToWebSocket, "101")
	g.reload(t)
	now, nowReader := rawStart(t, g, switchToWebSocket, "101")
	if !echoes(conn, reader) || !echoes(other, otherReader) || !echoes(later, laterReader) {
		t.Error("a reload ended an upgraded connection")
	}

	if done := rgate(t, nil, "reload", "-c", g.file, "--close"); done.code != 0 {
		t.Fatalf("rgate reload --close: exit code %d, %s", done.code, done.stderr)
	}
	for name, reader := range map[string]*bufio.Reader{"the first": reader, "the second": laterReader, "the last": nowReader} {
		if got, err := io.ReadAll(reader); !strings.Contains(string(got), goingAway) || err != nil {
			t.Errorf("after reload --close, %s WebSocket got %q and %v, want a close frame with 1001", name, got, err)
		}
	}
	if got, err := io.ReadAll(otherReader); len(got) > 0 || err != nil {
		t.Errorf("after reload --close, the other protocol got %q and %v, want its end", got, err)
	}
	if _, err := events.ReadString('\n'); err != nil {
		t.Errorf("reload --close ended an event stream: %v", err)
	}
	if echoes(now, nowReader) {
		t.Error("a closed WebSocket responds")
	}

	g.write(t, "admin: localhost:$ADMIN\nstream_close_delay: 0s"+strings.ReplaceAll(config, "$DIAL", b.dial()))
	g.reload(t)
	_, reader = rawStart(t, g, switchToWebSocket, "101")
	g.reload(t)
	if got, err := io.ReadAll(reader); !strings.Contains(string(got), goingAway) || err != nil {
		t.Errorf("with stream_close_delay 0s, a reload sent %q and %v to a WebSocket, want a close frame with 1001", got, err)
	}
}

// An open WebSocket keeps its own configuration in memory, and no other one.
func TestF3ReloadsWithAnOpenWebSocketTakeNoMemory(t *testing.T) {
	t.Parallel()
	b := startEndlessBackend(t)
	g := startGateway(t, strings.ReplaceAll(endlessRoutes, "$DIAL", b.dial()))
	number := 0
	reload := func() {
		number++
		config := fmt.Sprintf("listen: \":%d\"\nadmin: localhost:%d\ncache: {ttl: 1s}\nrate_limit: {requests: 1000, window: 1s}\ndefault_response: {body: version %d}\n"+
			"backends: [{name: web, dial: [%q]}]\nroutes: [{path_prefix: /, backend: web}", g.port, g.admin, number, b.dial())
		for i := range 100 {
			config += fmt.Sprintf(", {path_prefix: /%d, backend: web, transform: {request: {headers: {set: {X-A: b}}}}}", i)
		}
		g.load(t, config+"]\n")
	}
	grown := func(what string, heap int, goroutines float64) {
		t.Helper()
		now, running := g.heap(t), g.metric(t, "go_goroutines")
		t.Logf("%s: the heap changed by %d bytes, the goroutines by %v", what, now-heap, running-goroutines)
		if now > heap+1<<20 || running > goroutines+10 {
			t.Errorf("%s: the heap grew from %d to %d bytes, the goroutines from %v to %v", what, heap, now, goroutines, running)
		}
	}
	for range 5 {
		reload()
	}
	without := g.heap(t)
	conn, reader := rawStart(t, g, switchToWebSocket, "101")
	must(t, "removing the deadline", conn.SetDeadline(time.Time{}))
	reload()
	heap, goroutines := g.heap(t), g.metric(t, "go_goroutines")
	t.Logf("the open WebSocket takes %d bytes", heap-without)
	reloads := 50
	if raceDetector { // reloads are slow
		reloads = 10
	}
	for range reloads {
		reload()
	}
	grown(fmt.Sprintf("%d reloads with one open WebSocket", reloads), heap, goroutines)
	if !echoes(conn, reader) {
		t.Error("the WebSocket has ended")
	}
	for range 5 {
		old := conn
		conn, reader = rawStart(t, g, switchToWebSocket, "101")
		must(t, "closing a WebSocket", old.Close())
		reload()
	}
	grown("5 reloads, each with a new WebSocket", heap, goroutines)
	if !echoes(conn, reader) {
		t.Error("the last WebSocket has ended")
	}
}
