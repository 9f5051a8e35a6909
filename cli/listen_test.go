package cli

import (
	"errors"
	"io"
	"net"
	"strconv"
	"testing"

	"github.com/caddyserver/caddy/v2"
)

// newAddress returns an address with a free port.
func newAddress(t *testing.T) string {
	t.Helper()
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer free.Close()
	return free.Addr().String()
}

func listenAt(t *testing.T, address string) net.Listener {
	t.Helper()
	parsed, err := caddy.ParseNetworkAddress(sharedNetwork + "/" + address)
	if err != nil {
		t.Fatal(err)
	}
	l, err := parsed.Listen(t.Context(), 0, net.ListenConfig{})
	if err != nil {
		t.Fatal(err)
	}
	return l.(net.Listener)
}

func closed(t *testing.T, l net.Listener) {
	t.Helper()
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("a closed listener accepts: %v", err)
	}
}

// dial opens connections that may not have been accepted yet, and sends data.
func dial(t *testing.T, address string, n int) (conns []net.Conn) {
	t.Helper()
	for range n {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		if _, err := conn.Write([]byte{0}); err != nil {
			t.Fatal(err)
		}
		conns = append(conns, conn)
	}
	return conns
}

// accept accepts n connections and responds to each with one byte.
func accept(t *testing.T, l net.Listener, n int) {
	t.Helper()
	for range n {
		conn, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(conn, make([]byte, 1)); err != nil {
			t.Error(err)
		}
		if _, err := conn.Write([]byte{1}); err != nil {
			t.Error(err)
		}
		_ = conn.Close()
	}
}

// A connection that waits in the accept queue survives the close of the listener that
// was the newest when it was established.
func TestQueuedConnectionsOutliveAListener(t *testing.T) {
	address := newAddress(t)
	current := listenAt(t, address)
	for range 5 {
		conns := dial(t, address, 20)
		next := listenAt(t, address)
		closed(t, current)
		accept(t, next, len(conns))
		for _, conn := range conns {
			if n, err := conn.Read(make([]byte, 1)); n != 1 {
				t.Errorf("a queued connection was lost: %v", err)
			}
		}
		current = next
	}
	closed(t, current)
	if conn, err := net.Dial("tcp", address); err == nil {
		_ = conn.Close()
		t.Error("the socket is still open after its last listener was closed")
	}
	if len(shared.sockets) != 0 {
		t.Errorf("%d sockets are kept", len(shared.sockets))
	}
}

func TestOnlyTheNewestListenerAccepts(t *testing.T) {
	address := newAddress(t)
	old := listenAt(t, address)
	taken := make(chan net.Conn)
	go func() {
		defer close(taken)
		for {
			conn, err := old.Accept()
			if err != nil {
				return
			}
			taken <- conn
		}
	}()
	dial(t, address, 1)
	_ = (<-taken).Close()

	newest := listenAt(t, address)
	dial(t, address, 20)
	accept(t, newest, 20)
	select {
	case conn := <-taken:
		_ = conn.Close()
		t.Error("the old listener accepted a connection although there is a newer one")
	default:
	}
	closed(t, newest) // as if its configuration failed to start
	dial(t, address, 1)
	_ = (<-taken).Close()
	closed(t, old)
	if _, more := <-taken; more {
		t.Error("a closed listener accepted a connection")
	}
	if err := old.Close(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("closing twice: got %v", err)
	}
}

func TestLastingNetworkTakesPortRanges(t *testing.T) {
	if _, err := listenShared(t.Context(), "", "127.0.0.1", "http", 0, net.ListenConfig{}); err == nil {
		t.Error("an invalid port was accepted")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	busy := l.Addr().(*net.TCPAddr).Port
	// The second port of the range is in use.
	ports := strconv.Itoa(busy-1) + "-" + strconv.Itoa(busy)
	if _, err := listenShared(t.Context(), "", "127.0.0.1", ports, 1, net.ListenConfig{}); err == nil {
		t.Errorf("port %d of %s could be opened although it is busy", busy, ports)
	}
}
