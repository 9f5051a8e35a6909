package cli

import (
	"net"
	"strconv"
	"testing"

	"github.com/caddyserver/caddy/v2"
)

// A connection that is established while nobody accepts must survive the end of
// the listener that was there when it came.
func TestQueuedConnectionsOutliveAListener(t *testing.T) {
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := free.Addr().String()
	if err := free.Close(); err != nil {
		t.Fatal(err)
	}
	listen := func() net.Listener {
		t.Helper()
		parsed, err := caddy.ParseNetworkAddress(lastingNetwork + "/" + address)
		if err != nil {
			t.Fatal(err)
		}
		l, err := parsed.Listen(t.Context(), 0, net.ListenConfig{})
		if err != nil {
			t.Fatal(err)
		}
		return l.(net.Listener)
	}
	const reloads, clients = 5, 20
	current := listen()
	for range reloads {
		var conns []net.Conn
		for range clients {
			conn, err := net.Dial("tcp", address)
			if err != nil {
				t.Fatal(err)
			}
			conns = append(conns, conn)
		}
		next := listen()
		if err := current.Close(); err != nil {
			t.Fatal(err)
		}
		if _, err := current.Accept(); err == nil {
			t.Fatal("a closed listener accepts")
		}
		for range clients {
			conn, err := next.Accept()
			if err != nil {
				t.Fatal(err)
			}
			if _, err := conn.Write([]byte{1}); err != nil {
				t.Error(err)
			}
			_ = conn.Close()
		}
		for _, conn := range conns {
			if n, err := conn.Read(make([]byte, 1)); n != 1 {
				t.Errorf("a queued connection was lost: %v", err)
			}
			_ = conn.Close()
		}
		current = next
	}
	if err := current.Close(); err != nil {
		t.Fatal(err)
	}
	if conn, err := net.Dial("tcp", address); err == nil {
		_ = conn.Close()
		t.Error("the socket is still open after the last listener was closed")
	}
	if len(lasting.sockets) != 0 {
		t.Errorf("%d sockets are kept", len(lasting.sockets))
	}
}

func TestLastingNetworkTakesPortRanges(t *testing.T) {
	if _, err := listenLasting(t.Context(), "", "127.0.0.1", "http", 0, net.ListenConfig{}); err == nil {
		t.Error("a port that is no number was taken")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	busy := l.Addr().(*net.TCPAddr).Port
	// The second of the range is the busy one.
	ports := strconv.Itoa(busy-1) + "-" + strconv.Itoa(busy)
	if _, err := listenLasting(t.Context(), "", "127.0.0.1", ports, 1, net.ListenConfig{}); err == nil {
		t.Errorf("port %d of %s could be opened although it is busy", busy, ports)
	}
}
