package stats

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/rgate/rgate/internal/testkit"
)

// serveOnce runs one request through a series and returns its traffic.
func serveOnce(r *http.Request, next handle) Traffic {
	rec := NewRecorder("g")
	_ = capture(func() {
		_ = rec.Series("/", "b").Serve(httptest.NewRecorder(), r, caddyhttp.HandlerFunc(next), nil)
	})
	return rec.Snapshot().Series[0].Traffic
}

func upload(body string) *http.Request {
	return httptest.NewRequest("POST", "/", strings.NewReader(body))
}

func TestBodiesAreCountedAsTheyAre(t *testing.T) {
	respond := func(status int, parts ...string) handle {
		return func(w http.ResponseWriter, r *http.Request) error {
			_, _ = io.Copy(io.Discard, r.Body)
			w.WriteHeader(status)
			for _, part := range parts {
				_, _ = io.WriteString(w, part)
			}
			return nil
		}
	}
	unknown := upload("12345")
	unknown.ContentLength = -1
	for name, tc := range map[string]struct {
		r               *http.Request
		next            handle
		ingress, egress uint64
	}{
		"nothing":   {httptest.NewRequest("GET", "/", nil), respond(200), 0, 0},
		"both ways": {upload("123"), respond(200, "12"), 3, 2},
		"several":   {unknown, respond(404, "12", "345", "6"), 5, 6},
		"HEAD":      {httptest.NewRequest("HEAD", "/", nil), respond(200, "12", "3"), 0, 0},
		"204":       {upload("123"), respond(204, "12"), 3, 0},
		"304":       {httptest.NewRequest("GET", "/", nil), respond(304, "12"), 0, 0},
		"not read":  {upload("123"), func(http.ResponseWriter, *http.Request) error { return nil }, 0, 0},
		"read partly": {upload("123456"), func(_ http.ResponseWriter, r *http.Request) error {
			_, err := io.CopyN(io.Discard, r.Body, 4)
			return err
		}, 4, 0},
		"no status": {httptest.NewRequest("GET", "/", nil), func(w http.ResponseWriter, _ *http.Request) error { _, err := io.WriteString(w, "12"); return err }, 0, 2},
		"ReadFrom": {httptest.NewRequest("GET", "/", nil), func(w http.ResponseWriter, _ *http.Request) error {
			_, err := io.Copy(w, strings.NewReader("12"))
			return err
		}, 0, 2},
		"HEAD, ReadFrom": {httptest.NewRequest("HEAD", "/", nil), func(w http.ResponseWriter, _ *http.Request) error {
			_, err := w.(io.ReaderFrom).ReadFrom(strings.NewReader("12"))
			return err
		}, 0, 0},
		"abort": {upload("123456"), func(w http.ResponseWriter, r *http.Request) error {
			_, _ = io.CopyN(w, r.Body, 5)
			panic(http.ErrAbortHandler)
		}, 5, 5},
		"panic, flushed": {upload("123"), func(w http.ResponseWriter, _ *http.Request) error {
			_, _ = io.WriteString(w, "12")
			_ = http.NewResponseController(w).Flush()
			_, _ = io.WriteString(w, "34")
			panic("x")
		}, 0, 4},
	} {
		t.Run(name, func(t *testing.T) {
			if got := serveOnce(tc.r, tc.next); got.IngressBody != tc.ingress || got.EgressBody != tc.egress {
				t.Errorf("%d in and %d out, want %d and %d", got.IngressBody, got.EgressBody, tc.ingress, tc.egress)
			}
		})
	}
}

// TestBodiesReadAfterTheHandlerAreCounted checks that a transport can read the body while
// the next request uses the same writer.
func TestBodiesReadAfterTheHandlerAreCounted(t *testing.T) {
	rec := NewRecorder("g")
	s := rec.Series("/", "b")
	var left io.Reader
	next := caddyhttp.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) error {
		left = r.Body
		return nil
	})
	if err := s.Serve(testkit.DiscardWriter{}, upload("12345"), next, nil); err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, left)
	if got := rec.Snapshot().Series[0].Traffic.IngressBody; got != 5 {
		t.Errorf("%d bytes, want 5", got)
	}
}

func TestWithoutABodyNothingIsWrapped(t *testing.T) {
	for name, body := range map[string]io.ReadCloser{"none": nil, "NoBody": http.NoBody, "known to be empty": io.NopCloser(strings.NewReader(""))} {
		r := httptest.NewRequest("GET", "/", nil)
		r.Body = body
		_ = NewRecorder("g").Series("/", "b").Serve(testkit.DiscardWriter{}, r, caddyhttp.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) error {
			if r.Body != body {
				t.Errorf("%s: the body is a %T", name, r.Body)
			}
			return nil
		}), nil)
	}
}

func TestMeteringAllocatesForBodiesAlone(t *testing.T) {
	s := NewRecorder("g").Series("/", "b")
	w, r, next := typical()
	if n := testing.AllocsPerRun(1000, func() { _ = s.Serve(w, r, next, nil) }); n > 0 {
		t.Errorf("%g allocations without a body, want none", n)
	}
	body := io.NopCloser(strings.NewReader("x"))
	if n := testing.AllocsPerRun(1000, func() {
		r.Body, r.ContentLength = body, 1
		_ = s.Serve(w, r, next, nil)
	}); n > 1 {
		t.Errorf("%g allocations with a body, want one", n)
	}
}

// TestDownloadsAreSeenWhileTheyFlow checks that long transfers are counted before they
// end: one large write, many small writes, and a file.
func TestDownloadsAreSeenWhileTheyFlow(t *testing.T) {
	large := make([]byte, 4*piece)
	for name, send := range map[string]handle{
		"Write": func(w http.ResponseWriter, _ *http.Request) error { _, err := w.Write(large); return err },
		"ReadFrom": func(w http.ResponseWriter, _ *http.Request) error {
			_, err := w.(io.ReaderFrom).ReadFrom(struct{ io.Reader }{bytes.NewReader(large)})
			return err
		},
		"small pieces": func(w http.ResponseWriter, _ *http.Request) error {
			for range 4 {
				_, _ = w.Write(large[:piece])
			}
			return nil
		},
	} {
		rec := NewRecorder("g")
		slow := &watching{ResponseWriter: testkit.DiscardWriter{}, seen: func() uint64 { return rec.Snapshot().Series[0].Traffic.EgressBody }}
		if err := rec.Series("/", "b").Serve(slow, httptest.NewRequest("GET", "/", nil), caddyhttp.HandlerFunc(send), nil); err != nil {
			t.Fatal(err)
		}
		if slow.seen() != 4*piece || slow.least < 2*piece {
			t.Errorf("%s: before the last piece %d were seen, after it %d", name, slow.least, slow.seen())
		}
	}
}

// watching is a response writer that records the statistics before the last write.
type watching struct {
	http.ResponseWriter
	seen  func() uint64
	least uint64
}

func (w *watching) Write(p []byte) (int, error) {
	w.least = w.seen()
	return w.ResponseWriter.Write(p)
}

// TestPiecesOfAFileCanBeSentByTheKernel checks that only one LimitedReader wraps a file.
// The server unwraps only one for sendfile.
func TestPiecesOfAFileCanBeSentByTheKernel(t *testing.T) {
	name := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(name, make([]byte, 3*piece), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, size := range []int64{0, 1, piece - 1, piece, piece + 1, 2*piece + 7, 3 * piece, 4 * piece} {
		file, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		var got []*io.LimitedReader
		under := readFromFunc{testkit.DiscardWriter{}, func(r io.Reader) (int64, error) {
			limit, _ := r.(*io.LimitedReader)
			got = append(got, limit)
			if limit == nil || limit.R != file {
				t.Errorf("got a %T, want the file with a limit", r)
			}
			return io.Copy(io.Discard, r)
		}}
		r, limit := httptest.NewRequest("GET", "/", nil), &io.LimitedReader{R: file, N: size}
		rec := NewRecorder("g")
		var n int64
		err = rec.Series("/", "b").Serve(under, r, caddyhttp.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) (err error) {
			n, err = w.(io.ReaderFrom).ReadFrom(limit)
			return err
		}), nil)
		want := min(size, 3*piece)
		if counted := rec.Snapshot().Series[0].Traffic.EgressBody; err != nil || n != want || counted != uint64(want) || limit.N != size-want {
			t.Errorf("of %d: %d sent, %d counted, %d left, %v", size, n, counted, limit.N, err)
		}
		_ = file.Close()
	}
}

type readFromFunc struct {
	http.ResponseWriter
	read func(io.Reader) (int64, error)
}

func (w readFromFunc) ReadFrom(r io.Reader) (int64, error) { return w.read(r) }

// TestHijackedConnectionsAreCounted checks that frames are counted in both directions
// before the connection ends. They can arrive with the request or be written to the
// buffer.
func TestHijackedConnectionsAreCounted(t *testing.T) {
	rec := NewRecorder("g")
	counted := func() Traffic { return rec.Snapshot().Series[0].Traffic }
	looked, proceed := make(chan struct{}), make(chan struct{})
	srv := server(t, rec, func(w http.ResponseWriter, _ *http.Request) error {
		w.Header().Set("Upgrade", "echo")
		w.Header().Set("Connection", "Upgrade")
		w.WriteHeader(101)
		conn, buf, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return err
		}
		defer conn.Close()
		if n := buf.Reader.Buffered(); n != 5 {
			t.Errorf("%d bytes are buffered, want 5", n)
		}
		if got := counted(); got.IngressBody != 5 || got.EgressBody != 0 || got.EgressHeader == 0 || got.IngressHeader == 0 {
			t.Errorf("at first %+v is counted", got)
		}
		close(looked)
		early, _ := buf.ReadString('\n')
		late, _ := buf.ReadString('\n')
		if early != "early\n" || late != "late\n" {
			t.Errorf("read %q and %q", early, late)
		}
		_, _ = io.WriteString(buf, "buffered,")
		_ = buf.Flush()
		_, _ = io.WriteString(conn, "direct")
		<-proceed
		return nil
	})
	conn, err := net.Dial("tcp", srv.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_, _ = io.WriteString(conn, "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\nearly")
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil || response.StatusCode != 101 {
		t.Fatalf("got %v, %v", response, err)
	}
	<-looked // the server reads in the background until the hijack
	_, _ = io.WriteString(conn, "\nlate\n")
	testkit.Eventually(t, "what flows is counted", func() bool {
		got := counted()
		return got.IngressBody == uint64(len("early\nlate\n")) && got.EgressBody == uint64(len("buffered,direct"))
	})
	close(proceed)
}

func TestOnlyWhatCanBeHalfClosedSaysSo(t *testing.T) {
	s := NewRecorder("g").Series("/", "b")
	near, far := net.Pipe()
	defer near.Close()
	defer far.Close()
	buf := bufio.NewReadWriter(bufio.NewReader(near), bufio.NewWriter(near))
	conn, _ := meterConn(near, buf, flow{shard: s.shard(0)})
	if _, ok := conn.(interface{ CloseWrite() error }); ok {
		t.Error("a pipe has no half to close")
	}
	closer := &closing{Conn: near}
	conn, _ = meterConn(closer, buf, flow{shard: s.shard(0)})
	half, ok := conn.(interface{ CloseWrite() error })
	if !ok || half.CloseWrite() != nil || !closer.closed {
		t.Error("the half was not closed")
	}
}

type closing struct {
	net.Conn
	closed bool
}

func (c *closing) CloseWrite() error { c.closed = true; return nil }

func TestTrafficIsAttributedToAConsumer(t *testing.T) {
	rec := NewRecorder("g")
	s := rec.Series("/", "b")
	attributed := func(w http.ResponseWriter, r *http.Request) error {
		_, _ = io.CopyN(io.Discard, r.Body, 2) // before the consumer is known
		var wrapped http.ResponseWriter = &caddyhttp.ResponseWriterWrapper{ResponseWriter: w}
		ok := AttributeTo(wrapped, "alice")
		if wanted := rec.consumers.wanted.Load(); ok != wanted {
			t.Errorf("attributed: %t, want %t", ok, wanted)
		}
		_, _ = io.Copy(wrapped, r.Body)
		_ = http.NewResponseController(wrapped).Flush()
		_, _ = io.WriteString(wrapped, "!")
		return nil
	}
	serve := func() {
		if err := s.Serve(httptest.NewRecorder(), upload("12345"), caddyhttp.HandlerFunc(attributed), nil); err != nil {
			t.Fatal(err)
		}
	}
	serve()
	got := drained{}
	got.from(rec)
	if len(got) != 1 {
		t.Errorf("drained %v before consumers were enabled", got)
	}
	serve()
	serve()
	got = drained{}
	got.from(rec)
	whole, part := got[[3]string{"/", "b", ""}].Traffic, got[[3]string{"/", "b", "alice"}].Traffic
	if want := (Traffic{6, 8, whole.IngressHeader, whole.EgressHeader}); part != want || whole.IngressBody != 10 || whole.EgressBody != 8 || want.EgressHeader == 0 {
		t.Errorf("alice has %+v of %+v, want %+v", part, whole, want)
	}
	if AttributeTo(httptest.NewRecorder(), "alice") {
		t.Error("attributed without a recorder")
	}
}
