package stats

import (
	"bytes"
	"io"
	"math"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/rgate/rgate/internal/testkit"
)

// TestHeadersOfARequestAreMeasured compares the estimate with the bytes of an HTTP/1.1
// message.
func TestHeadersOfARequestAreMeasured(t *testing.T) {
	for name, tc := range map[string]struct {
		request string
		next    handle
	}{
		"GET": {"GET /path?query=1 HTTP/1.1\r\nHost: example.org\r\nUser-Agent: test\r\nCookie: a=b\r\nCookie: c=d\r\n\r\n",
			func(w http.ResponseWriter, _ *http.Request) error {
				w.Header().Set("Content-Type", "text/plain")
				_, err := io.WriteString(w, "hello")
				return err
			}},
		"POST, chunked": {"POST / HTTP/1.1\r\nHost: example.org\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n",
			func(w http.ResponseWriter, r *http.Request) error {
				w.Header().Set("Content-Type", "text/plain")
				for range 3 {
					_, _ = w.Write(make([]byte, 5000))
				}
				return nil
			}},
		"refused": {"PUT / HTTP/1.1\r\nHost: example.org\r\nContent-Length: 0\r\n\r\n",
			func(w http.ResponseWriter, _ *http.Request) error {
				w.Header().Set("Retry-After", "1")
				w.WriteHeader(429)
				return nil
			}},
		"304": {"GET / HTTP/1.1\r\nHost: example.org\r\nIf-None-Match: \"x\"\r\n\r\n",
			func(w http.ResponseWriter, _ *http.Request) error {
				w.Header().Set("Etag", `"x"`)
				w.WriteHeader(304)
				return nil
			}},
		"hints": {"GET / HTTP/1.1\r\nHost: example.org\r\n\r\n",
			func(w http.ResponseWriter, _ *http.Request) error {
				w.Header().Set("Link", "</style.css>; rel=preload")
				w.WriteHeader(103)
				w.WriteHeader(204)
				return nil
			}},
		"protocol switch": {"GET / HTTP/1.1\r\nHost: example.org\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n",
			func(w http.ResponseWriter, _ *http.Request) error {
				w.Header().Set("Connection", "Upgrade")
				w.Header().Set("Upgrade", "x")
				w.WriteHeader(101)
				conn, _, err := http.NewResponseController(w).Hijack()
				if err == nil {
					_ = conn.Close()
				}
				return err
			}},
	} {
		t.Run(name, func(t *testing.T) {
			rec := NewRecorder("g")
			srv := server(t, rec, tc.next)
			conn, err := net.Dial("tcp", srv.Listener.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			_, _ = io.WriteString(conn, tc.request)
			// The server keeps the connection open, so close it once the request is
			// recorded.
			var got bytes.Buffer
			go func() {
				testkit.Eventually(t, "the request is recorded", func() bool { return len(rec.Snapshot().Series[0].Codes) > 0 })
				srv.CloseClientConnections()
			}()
			_, _ = io.Copy(&got, conn)
			header := got.String()
			end := strings.LastIndex(header, "\r\n\r\n")
			if name == "POST, chunked" {
				end = strings.Index(header, "\r\n\r\n")
			}
			sent, _, _ := strings.Cut(tc.request, "\r\n\r\n")
			want := Traffic{IngressHeader: uint64(len(sent) + 4), EgressHeader: uint64(end + 4)}
			counted := rec.Snapshot().Series[0].Traffic
			if counted.IngressHeader != want.IngressHeader || counted.EgressHeader != want.EgressHeader {
				t.Errorf("counted %+v, want %+v for\n%s", counted, want, header)
			}
		})
	}
}

func TestNoResponseHasNoHeader(t *testing.T) {
	got := serveOnce(upload("x"), func(http.ResponseWriter, *http.Request) error { panic(http.ErrAbortHandler) })
	if got.EgressHeader != 0 || got.IngressHeader == 0 {
		t.Errorf("counted %+v", got)
	}
}

// TestHeadersOfManyRequestsAreEstimated checks that sampled sizes are accurate on
// average, even if different kinds of requests alternate in a fixed pattern.
func TestHeadersOfManyRequestsAreEstimated(t *testing.T) {
	const n = 50_000
	rnd := rand.New(rand.NewPCG(7, 8))
	kinds := []struct{ request, response int }{{100, 300}, {900, 150}, {2000, 1200}, {40, 90}}
	requests := make([]*http.Request, len(kinds))
	for i, kind := range kinds {
		requests[i] = httptest.NewRequest("GET", "/", nil)
		requests[i].Header.Set("Cookie", strings.Repeat("x", kind.request))
	}
	for name, load := range map[string]struct {
		most float64 // maximum deviation
		kind func(i int) int
	}{
		"uniform":      {0, func(int) int { return 0 }},
		"in turn":      {0.05, func(i int) int { return i % 2 }},
		"sixteenth":    {0.05, func(i int) int { return min(i%16, 1) }},
		"mixed":        {0.05, func(int) int { return rnd.IntN(len(kinds)) }},
		"mostly small": {0.05, func(int) int { return []int{0, 0, 0, 0, 0, 0, 0, 2}[rnd.IntN(8)] }},
	} {
		rec := NewRecorder("g")
		rec.shards = 1 // makes the choice of the shard deterministic
		s := rec.Series("/", "b")
		var want Traffic
		for i := range n {
			k := load.kind(i)
			kind := kinds[k]
			_ = s.Serve(testkit.DiscardWriter{}, requests[k], caddyhttp.HandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
				w.Header().Set("X-Response", strings.Repeat("x", kind.response))
				w.Header().Set("Content-Length", "0")
				return nil
			}), nil)
			want.IngressHeader += uint64(len("GET / HTTP/1.1\r\nHost: example.com\r\nCookie: \r\n\r\n") + kind.request)
			want.EgressHeader += uint64(len("HTTP/1.1 200 OK\r\nX-Response: \r\nContent-Length: 0\r\nDate: \r\n\r\n") + len(http.TimeFormat) + kind.response)
		}
		got := rec.Snapshot().Series[0].Traffic
		off := func(got, want uint64) float64 { return math.Abs(float64(got)/float64(want) - 1) }
		if in, out := off(got.IngressHeader, want.IngressHeader), off(got.EgressHeader, want.EgressHeader); in > load.most || out > load.most {
			t.Errorf("%s: counted %+v, want %+v: off by %.2f %% and %.2f %%", name, got, want, in*100, out*100)
		} else {
			t.Logf("%s: off by %.2f %% and %.2f %%", name, in*100, out*100)
		}
	}
}
