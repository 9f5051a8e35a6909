package traffic

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// coalesceBody is a body that tells every place in it from the others.
func coalesceBody(size int) []byte {
	body := make([]byte, 0, size+8)
	for i := 0; len(body) < size; i++ {
		body = fmt.Appendf(body, "%07x\n", i)
	}
	return body[:size]
}

// coalesceSlowly sends a request over a connection of its own. Nobody reads from it
// yet, and the kernel keeps little.
func coalesceSlowly(t testing.TB, b *coalesceBackend) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", b.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	_ = conn.(*net.TCPConn).SetReadBuffer(32 << 10)
	_ = conn.SetDeadline(time.Now().Add(time.Minute))
	fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", b.Listener.Addr())
	return conn
}

// A body that is larger than the buffer gets to everybody, the slow ones included,
// whom nobody waits for: whether it is the leader or a follower that is slow, and
// whether or not the length is known.
func TestCoalesceLargeBodyAndSlowClients(t *testing.T) {
	body := coalesceBody(2 << 20)
	for _, tc := range []struct {
		what   string
		slow   int // which of the clients
		length bool
	}{
		{"nobody is slow", -1, true},
		{"a slow follower", 2, false},
		{"a slow follower, length known", 2, true},
		{"a slow leader", 0, false},
	} {
		t.Run(tc.what, func(t *testing.T) {
			b := coalesceServer(t, &Coalesce{MaxBuffer: 64 << 10}, func(w http.ResponseWriter, _ *http.Request) error {
				if tc.length {
					w.Header().Set("Content-Length", fmt.Sprint(len(body)))
				}
				for rest := body; len(rest) > 0; rest = rest[min(len(rest), 32<<10):] {
					if _, err := w.Write(rest[:min(len(rest), 32<<10)]); err != nil {
						panic(http.ErrAbortHandler)
					}
				}
				return nil
			})
			const clients = 4
			var fast sync.WaitGroup
			var slow net.Conn
			for i := range clients {
				if i == tc.slow {
					slow = coalesceSlowly(t, b)
				} else {
					fast.Go(func() {
						if got := coalesceText(coalesceGet(t.Context(), b.URL)); got != "200 "+string(body) {
							t.Errorf("a fast client got %d bytes: %.60q", len(got), got)
						}
					})
				}
				coalesceEventually(t, "it is under way", func() bool { return b.reached.Load() == 1 && b.policy.waiting() == i })
			}
			b.release()
			fast.Wait() // although the slow one has read nothing
			if slow != nil {
				got := coalesceText(http.ReadResponse(bufio.NewReader(slow), nil))
				if got != "200 "+string(body) {
					t.Errorf("the slow client got %d bytes: %.60q", len(got), got)
				}
			}
			if n := b.reached.Load(); slow != nil && n < 2 || n > clients {
				t.Errorf("the backend was asked %d times", n)
			}
		})
	}
}

// A slow client must not get two halves of different answers.
func TestCoalesceSlowClientOfAnAnswerThatChanges(t *testing.T) {
	var asked atomic.Int32
	b := coalesceServer(t, &Coalesce{MaxBuffer: 64 << 10}, func(w http.ResponseWriter, _ *http.Request) error {
		body := coalesceBody(2 << 20)
		body[0] = '0' + byte(asked.Add(1))
		_, err := io.Copy(w, strings.NewReader(string(body)))
		return err
	})
	var fast sync.WaitGroup
	fast.Go(func() { coalesceText(coalesceGet(t.Context(), b.URL)) })
	coalesceEventually(t, "the leader is under way", func() bool { return b.reached.Load() == 1 })
	slow := coalesceSlowly(t, b)
	coalesceEventually(t, "the other follows", func() bool { return b.policy.waiting() == 1 })
	b.release()
	fast.Wait()
	if got := coalesceText(http.ReadResponse(bufio.NewReader(slow), nil)); !strings.Contains(got, "then unexpected EOF") {
		t.Errorf("the slow client got %d bytes: %.60q", len(got), got)
	}
}
