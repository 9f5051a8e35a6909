package coalesce

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/rgate/rgate/internal/failure"
	"github.com/rgate/rgate/internal/testkit"
	"github.com/rgate/rgate/policy/policytest"
)

// The request is canceled when all clients have disconnected.
func TestCoalesceAllLeave(t *testing.T) {
	b := coalesceServer(t, new(Coalesce), coalesceHello)
	for _, order := range []string{"leader first", "follower first"} {
		t.Run(order, func(t *testing.T) {
			before := b.reached.Load()
			var ctxs [2]context.Context
			var cancels [2]context.CancelFunc
			var gone sync.WaitGroup
			for i := range 2 {
				ctxs[i], cancels[i] = context.WithCancel(t.Context())
				defer cancels[i]()
				gone.Go(func() { coalesceText(coalesceGet(ctxs[i], b.URL, "X-Request-Id", fmt.Sprint(order, i))) })
				testkit.Eventually(t, "it is under way", func() bool { return b.reached.Load() == before+1 && b.policy.waiting() == i })
			}
			first, second := 0, 1
			if order == "follower first" {
				first, second = 1, 0
			}
			cancels[first]()
			testkit.Eventually(t, "one has left", func() bool {
				return first == 1 && b.policy.waiting() == 0 || first == 0 && func() bool {
					b.onlyCall(t, func(f *call) bool { return f.alone })
					return true
				}()
			})
			cancels[second]()
			gone.Wait()
			testkit.Eventually(t, "the request has ended", func() bool {
				_, ok := b.errs.Load(fmt.Sprint(order, 0))
				return ok && b.policy.calls.idle()
			})
		})
	}
}

func TestCoalesceErrorsAreShared(t *testing.T) {
	failed := caddyhttp.Error(http.StatusServiceUnavailable, failure.Error{Err: errors.New("down")})
	b := coalesceServer(t, new(Coalesce), func(w http.ResponseWriter, _ *http.Request) error {
		w.Header().Set("Retry-After", "7")
		return failed
	})
	for i, got := range b.together(t, []string{"X-Request-Id", "0"}, []string{"X-Request-Id", "1"}, []string{"X-Request-Id", "2"}) {
		var failed failure.Error
		err, _ := b.errs.Load(fmt.Sprint(i))
		if got != "503 " || !errors.As(err.(error), &failed) {
			t.Errorf("client %d got %s, and the error %v", i, got, err)
		}
	}
	if n := b.reached.Load(); n != 1 {
		t.Errorf("the backend was asked %d times", n)
	}
}

// A panic affects only the leader.
func TestCoalescePanicBeforeTheResponse(t *testing.T) {
	var first atomic.Bool
	b := coalesceServer(t, new(Coalesce), func(w http.ResponseWriter, r *http.Request) error {
		if first.CompareAndSwap(false, true) {
			panic(http.ErrAbortHandler)
		}
		return coalesceHello(w, r)
	})
	got := b.together(t, nil, nil, nil)
	if !strings.Contains(got[0], "EOF") || got[1] != "200 hello" || got[2] != "200 hello" {
		t.Errorf("got %q", got)
	}
}

// All clients detect an incomplete body.
func TestCoalesceBrokenBody(t *testing.T) {
	b := coalesceServer(t, new(Coalesce), func(w http.ResponseWriter, _ *http.Request) error {
		_, _ = io.WriteString(w, "half of ")
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	})
	for i, got := range b.together(t, nil, nil, nil) {
		if !strings.Contains(got, "then unexpected EOF") {
			t.Errorf("client %d got %q", i, got)
		}
	}
}

func TestCoalesceStreams(t *testing.T) {
	more := make(chan string)
	b := coalesceServer(t, new(Coalesce), func(w http.ResponseWriter, _ *http.Request) error {
		w.WriteHeader(http.StatusOK)
		flush := http.NewResponseController(w).Flush
		if err := flush(); err != nil {
			return err
		}
		for part := range more {
			if _, err := io.WriteString(w, part); err != nil {
				return err
			}
			if err := flush(); err != nil {
				return err
			}
		}
		return nil
	})
	const clients = 5
	responses := make(chan *http.Response, clients)
	for range clients {
		go func() {
			response, err := coalesceGet(t.Context(), b.URL)
			if err != nil {
				t.Error(err)
			}
			responses <- response
		}()
	}
	testkit.Eventually(t, "all wait", func() bool { return b.policy.waiting() == clients-1 })
	b.release()
	var bodies []*bufio.Reader
	for range clients {
		response := <-responses
		defer response.Body.Close()
		bodies = append(bodies, bufio.NewReader(response.Body))
	}
	for i := range 4 {
		more <- fmt.Sprintf("line %d\n", i)
		for _, body := range bodies { // read before the next line is written
			if got, err := body.ReadString('\n'); err != nil || got != fmt.Sprintf("line %d\n", i) {
				t.Fatalf("got %q, %v", got, err)
			}
		}
	}
	close(more)
	for _, body := range bodies {
		if got, err := io.ReadAll(body); err != nil || len(got) > 0 {
			t.Errorf("got %q, %v", got, err)
		}
	}
}

// coalesceBody returns a body in which each position has different content.
func coalesceBody(size int) []byte {
	body := make([]byte, 0, size+8)
	for i := 0; len(body) < size; i++ {
		body = fmt.Appendf(body, "%07x\n", i)
	}
	return body[:size]
}

// coalesceSlowly sends a request over a separate connection with a small receive buffer.
// The response is not read yet.
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

// Bodies larger than the buffer are delivered completely to fast and slow clients. Fast
// clients do not wait for slow ones. The slow client is the leader or a follower, and the
// length of the body is known or unknown.
func TestCoalesceLargeBodyAndSlowClients(t *testing.T) {
	body := coalesceBody(2 << 20)
	for _, tc := range []struct {
		what   string
		slow   int // index of the slow client
		length bool
	}{
		{"no client is slow", -1, true},
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
				testkit.Eventually(t, "it is under way", func() bool { return b.reached.Load() == 1 && b.policy.waiting() == i })
			}
			b.release()
			fast.Wait() // even though the slow client has read nothing
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

// A slow client must not receive parts of different responses.
func TestCoalesceSlowClientOfAResponseThatChanges(t *testing.T) {
	var asked atomic.Int32
	b := coalesceServer(t, &Coalesce{MaxBuffer: 64 << 10}, func(w http.ResponseWriter, _ *http.Request) error {
		body := coalesceBody(2 << 20)
		body[0] = '0' + byte(asked.Add(1))
		_, err := io.Copy(w, strings.NewReader(string(body)))
		return err
	})
	var fast sync.WaitGroup
	fast.Go(func() { coalesceText(coalesceGet(t.Context(), b.URL)) })
	testkit.Eventually(t, "the leader is under way", func() bool { return b.reached.Load() == 1 })
	slow := coalesceSlowly(t, b)
	testkit.Eventually(t, "the other follows", func() bool { return b.policy.waiting() == 1 })
	b.release()
	fast.Wait()
	if got := coalesceText(http.ReadResponse(bufio.NewReader(slow), nil)); !strings.Contains(got, "then unexpected EOF") {
		t.Errorf("the slow client got %d bytes: %.60q", len(got), got)
	}
}

func TestCoalesceWaitsNoLongerThanItMay(t *testing.T) {
	b := coalesceServer(t, &Coalesce{MaxWait: caddy.Duration(time.Millisecond)}, coalesceHello)
	var all sync.WaitGroup
	for range 3 {
		all.Go(func() {
			if got := coalesceText(coalesceGet(t.Context(), b.URL)); got != "200 hello" {
				t.Errorf("got %s", got)
			}
		})
	}
	testkit.Eventually(t, "all have reached the backend", func() bool { return b.reached.Load() == 3 })
	b.release()
	all.Wait()
}

// A request after a change receives a response that began after the change.
func TestCoalesceAfterAChange(t *testing.T) {
	b := coalesceServer(t, new(Coalesce), coalesceHello)
	var all sync.WaitGroup
	get := func() { all.Go(func() { coalesceText(coalesceGet(t.Context(), b.URL+"/a?b=c")) }) }
	get()
	testkit.Eventually(t, "one is under way", func() bool { return b.reached.Load() == 1 })
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		testkit.Eventually(t, "the change is under way", func() bool { return b.reached.Load() == 2 })
		cancel()
	}()
	coalesceText(coalesceDo(ctx, http.MethodPut, b.URL+"/a"))
	testkit.Eventually(t, "the change is over", b.policy.calls.idle)
	get()
	testkit.Eventually(t, "another one is under way", func() bool { return b.reached.Load() == 3 })
	get()
	testkit.Eventually(t, "the last one follows that", func() bool { return b.policy.waiting() == 1 })
	b.release()
	all.Wait()
}

func TestCoalesceHead(t *testing.T) {
	b := coalesceServer(t, new(Coalesce), func(w http.ResponseWriter, _ *http.Request) error {
		w.Header().Set("Content-Length", "5")
		return coalesceHello(w, nil)
	})
	var all sync.WaitGroup
	for range 3 {
		all.Go(func() {
			response, err := coalesceDo(t.Context(), http.MethodHead, b.URL)
			if err != nil {
				t.Error(err)
				return
			}
			response.Body.Close()
			if response.ContentLength != 5 {
				t.Errorf("the length is %d", response.ContentLength)
			}
		})
	}
	testkit.Eventually(t, "all wait", func() bool { return b.policy.waiting() == 2 })
	b.release()
	all.Wait()
}

func TestCoalesceOptions(t *testing.T) {
	for text, want := range map[string]string{
		"rgate_coalesce": `{}`,
		"rgate_coalesce {http.request.header.Authorization}": `{"key":"{http.request.header.Authorization}"}`,
		"rgate_coalesce off": `{"disabled":true}`,
		"rgate_coalesce {\n max_buffer 64KiB\n max_wait 5s\n}": `{"max_buffer":65536,"max_wait":5000000000}`,
		"rgate_coalesce user":                   "! invalid key \"user\": must have a placeholder",
		"rgate_coalesce {\n max_wait -1s\n}":    "! invalid max_wait -1s: must not be negative",
		"rgate_coalesce {\n max_buffer much\n}": "! max_buffer must be a size",
		"rgate_coalesce {\n buffer 1\n}":        "! unrecognized subdirective 'buffer'",
	} {
		c := new(Coalesce)
		if got := policytest.Options(t, c, text); got != want && (!strings.HasPrefix(want, "!") || !strings.HasPrefix(got, want)) {
			t.Errorf("%s:\ngot  %s\nwant %s", text, got, want)
		}
	}
	if err := (&Coalesce{MaxBuffer: -1}).Check(); err == nil {
		t.Error("a negative max_buffer is right")
	}
}
