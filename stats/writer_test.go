package stats

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/rgate/rgate/internal/testkit"
)

type handle = func(http.ResponseWriter, *http.Request) error

func TestEachRequestIsRecordedOnceWithItsStatus(t *testing.T) {
	write := func(status int) handle {
		return func(w http.ResponseWriter, _ *http.Request) error {
			w.WriteHeader(status)
			return nil
		}
	}
	left, leave := context.WithCancel(context.Background())
	leave()
	late, cancel := context.WithDeadline(context.Background(), time.Unix(0, 0))
	defer cancel()

	for name, tc := range map[string]struct {
		next   handle
		ctx    context.Context
		method string
		major  int
		want   int
	}{
		"nothing written":   {next: func(http.ResponseWriter, *http.Request) error { return nil }, want: 200},
		"header":            {next: write(404), want: 404},
		"protocol switch":   {next: write(101), want: 101},
		"informational":     {next: func(w http.ResponseWriter, r *http.Request) error { w.WriteHeader(103); return write(201)(w, r) }, want: 201},
		"header twice":      {next: func(w http.ResponseWriter, r *http.Request) error { w.WriteHeader(201); return write(500)(w, r) }, want: 201},
		"body":              {next: func(w http.ResponseWriter, _ *http.Request) error { _, err := w.Write([]byte("x")); return err }, want: 200},
		"WebSocket, HTTP/2": {next: write(200), method: "CONNECT", major: 2, want: 101},
		"refused, HTTP/2":   {next: write(403), method: "CONNECT", major: 2, want: 403},
		"handler error":     {next: func(http.ResponseWriter, *http.Request) error { return caddyhttp.Error(429, errors.New("x")) }, want: 429},
		"wrapped error": {next: func(http.ResponseWriter, *http.Request) error {
			return errors.Join(io.EOF, caddyhttp.Error(499, io.EOF))
		}, want: 499},
		"error, no status": {next: func(http.ResponseWriter, *http.Request) error { return caddyhttp.HandlerError{Err: io.EOF} }, want: 500},
		"any error":        {next: func(http.ResponseWriter, *http.Request) error { return io.EOF }, want: 500},
		"error afterwards": {next: func(w http.ResponseWriter, r *http.Request) error {
			w.WriteHeader(206)
			return caddyhttp.Error(502, io.EOF)
		}, want: 206},
		"abort":               {next: func(http.ResponseWriter, *http.Request) error { panic(http.ErrAbortHandler) }, want: 502},
		"abort, client left":  {next: func(http.ResponseWriter, *http.Request) error { panic(http.ErrAbortHandler) }, ctx: left, want: 499},
		"abort, time is over": {next: func(http.ResponseWriter, *http.Request) error { panic(http.ErrAbortHandler) }, ctx: late, want: 502},
		"abort afterwards":    {next: func(w http.ResponseWriter, r *http.Request) error { w.WriteHeader(200); panic(http.ErrAbortHandler) }, ctx: left, want: 200},
		"panic":               {next: func(http.ResponseWriter, *http.Request) error { panic("x") }, want: 500},
	} {
		t.Run(name, func(t *testing.T) {
			rec := NewRecorder("g")
			s := rec.Series("/", "b")
			r := httptest.NewRequest("GET", "/", nil)
			if tc.method != "" {
				r.Method, r.ProtoMajor = tc.method, tc.major
			}
			if tc.ctx != nil {
				r = r.WithContext(tc.ctx)
			}
			var returned error
			panicked := capture(func() {
				returned = s.Serve(testkit.DiscardWriter{}, r, caddyhttp.HandlerFunc(tc.next), nil)
			})
			var wanted error
			if expected := capture(func() { wanted = tc.next(testkit.DiscardWriter{}, r) }); panicked != expected {
				t.Errorf("panicked with %v, want %v", panicked, expected)
			}
			if (returned == nil) != (wanted == nil) {
				t.Errorf("returned %v, want %v", returned, wanted)
			}
			if codes := rec.Snapshot().Series[0].Codes; len(codes) != 1 || codes[tc.want] != 1 {
				t.Errorf("recorded %v, want one %d", codes, tc.want)
			}
			if n := s.inFlight(); n != 0 {
				t.Errorf("%d requests in flight, want none", n)
			}
		})
	}
}

// capture returns the panic value of f.
func capture(f func()) (cause any) {
	defer func() { cause = recover() }()
	f()
	return nil
}

func TestDurationIsThatOfTheHandler(t *testing.T) {
	rec := NewRecorder("g")
	const took = 20 * time.Millisecond
	_ = rec.Series("/", "b").Serve(testkit.DiscardWriter{}, httptest.NewRequest("GET", "/", nil),
		caddyhttp.HandlerFunc(func(http.ResponseWriter, *http.Request) error {
			<-time.After(took)
			return nil
		}), nil)
	if got := rec.Report(Query{}).Latency.Average; got < 20 || got > 2000 {
		t.Errorf("average is %g ms, want 20 or a little more", got)
	}
}

// server starts a server with a handler behind a series. Like in Caddy, the writer has no
// optional methods except through Unwrap.
func server(t *testing.T, rec *Recorder, next handle) *httptest.Server {
	s := rec.Series("/", "b")
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		bare := &caddyhttp.ResponseWriterWrapper{ResponseWriter: w}
		if err := s.Serve(bare, r, caddyhttp.HandlerFunc(next), nil); err != nil {
			t.Error(err)
		}
	}))
	t.Cleanup(srv.Close)
	return srv
}

func TestEventsArriveAsTheyAreFlushed(t *testing.T) {
	rec := NewRecorder("g")
	read := make(chan struct{})
	srv := server(t, rec, func(w http.ResponseWriter, _ *http.Request) error {
		flush := http.NewResponseController(w)
		if err := flush.Flush(); err != nil { // sends only the header
			return err
		}
		for range 3 {
			<-read
			_, _ = io.WriteString(w, "data: x\n\n")
			if err := flush.Flush(); err != nil {
				return err
			}
		}
		<-read
		return nil
	})
	res, err := srv.Client().Get(srv.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	lines := bufio.NewReader(res.Body)
	for range 3 {
		read <- struct{}{}
		for _, want := range []string{"data: x\n", "\n"} {
			if line, err := lines.ReadString('\n'); line != want || err != nil {
				t.Fatalf("read %q, %v; want %q", line, err, want)
			}
		}
	}
	if n := rec.Snapshot().Series[0].InFlight; n != 1 {
		t.Errorf("%d requests in flight, want 1", n)
	}
	read <- struct{}{}
	testkit.Eventually(t, "the stream is recorded", func() bool { return rec.Report(Query{}).Requests.Success == 1 })
}

func TestAnAbortAfterAFlushCountsAsWhatWasSent(t *testing.T) {
	rec := NewRecorder("g")
	s := rec.Series("/", "b")
	capture(func() {
		_ = s.Serve(httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil),
			caddyhttp.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) error {
				if err := http.NewResponseController(w).Flush(); err != nil {
					t.Error(err)
				}
				panic(http.ErrAbortHandler)
			}), nil)
	})
	if got := rec.Report(Query{}).Requests; got != (Requests{1, 0}) {
		t.Errorf("recorded %+v, want one success", got)
	}
}

func TestHijackedConnectionCanBeHalfClosed(t *testing.T) {
	rec := NewRecorder("g")
	srv := server(t, rec, func(w http.ResponseWriter, _ *http.Request) error {
		conn, buf, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return err
		}
		defer conn.Close()
		if _, ok := conn.(interface{ CloseWrite() error }); !ok {
			t.Errorf("the connection is a %T without CloseWrite", conn)
		}
		_, _ = io.WriteString(buf, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
		_ = buf.Flush()
		line, _ := buf.ReadString('\n')
		_, err = io.WriteString(conn, line)
		return err
	})
	conn, err := net.Dial("tcp", srv.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_, _ = io.WriteString(conn, "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\nhello\n")
	all, err := io.ReadAll(conn)
	if err != nil || !strings.HasSuffix(string(all), "\r\n\r\nhello\n") {
		t.Errorf("read %q, %v", all, err)
	}
	testkit.Eventually(t, "the connection is recorded", func() bool { return rec.Snapshot().Series[0].Codes[101] == 1 })
	if got := rec.Report(Query{}); got.Figures != (Figures{}) {
		t.Errorf("figures are %+v, want none", got)
	}
}

// TestFilesAreCopiedByTheServersReadFrom checks that files are copied by the server's
// ReadFrom, which can use sendfile.
func TestFilesAreCopiedByTheServersReadFrom(t *testing.T) {
	name := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(name, []byte("content"), 0o600); err != nil {
		t.Fatal(err)
	}
	file, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()

	rec := NewRecorder("g")
	under := &readerFrom{ResponseWriter: httptest.NewRecorder()}
	err = rec.Series("/", "b").Serve(under, httptest.NewRequest("GET", "/", nil),
		caddyhttp.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) error {
			_, err := io.Copy(w, struct{ io.Reader }{file})
			return err
		}), nil)
	if err != nil || under.n != 7 {
		t.Errorf("ReadFrom got %d bytes, %v; want 7", under.n, err)
	}
	if got := rec.Report(Query{}).Requests; got != (Requests{1, 0}) {
		t.Errorf("recorded %+v", got)
	}
}

type readerFrom struct {
	http.ResponseWriter
	n int64
}

func (w *readerFrom) ReadFrom(r io.Reader) (n int64, err error) {
	n, err = io.Copy(w.ResponseWriter, r)
	w.n += n
	return n, err
}

// TestWritersOfHijackedAndAbortedRequestsAreNotReused checks that a goroutine that holds
// the writer of an ended request cannot write to another response.
func TestWritersOfHijackedAndAbortedRequestsAreNotReused(t *testing.T) {
	rec := NewRecorder("g")
	s := rec.Series("/", "b")
	var held []http.ResponseWriter
	for range 20 {
		capture(func() {
			_ = s.Serve(testkit.DiscardWriter{}, httptest.NewRequest("GET", "/", nil),
				caddyhttp.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) error {
					held = append(held, w)
					panic(http.ErrAbortHandler)
				}), nil)
		})
		_ = s.Serve(hijackable{testkit.DiscardWriter{}}, httptest.NewRequest("GET", "/", nil),
			caddyhttp.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) error {
				held = append(held, w)
				_, _, err := http.NewResponseController(w).Hijack()
				return err
			}), nil)
	}
	for range 100 {
		w := writers.Get().(*writer)
		for _, h := range held {
			if h == w {
				t.Fatal("a writer that may still be in use is in the pool")
			}
		}
	}
}

type hijackable struct{ http.ResponseWriter }

func (hijackable) Hijack() (net.Conn, *bufio.ReadWriter, error) { return nil, nil, nil }
