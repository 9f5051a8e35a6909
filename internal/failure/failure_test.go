package failure

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"syscall"
	"testing"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"

	"github.com/rgate/rgate/internal/entry"
	"github.com/rgate/rgate/internal/httpx"
)

func TestClassify(t *testing.T) {
	refused := reverseproxy.NewDialError(&net.OpError{Op: "dial", Err: syscall.ECONNREFUSED})
	unfinished, waiting := httpx.Upload{Unfinished: true}, httpx.Upload{Unfinished: true, Waiting: true}
	for _, tc := range []struct {
		what   string
		err    error
		upload httpx.Upload
		want   Result
	}{
		{"refused", refused, httpx.Upload{}, Result{Backend, 503, true}},
		{"refused under an upload", refused, unfinished, Result{Backend, 503, true}},
		{"no file descriptor", reverseproxy.NewDialError(syscall.EMFILE), httpx.Upload{}, Result{Gateway, 503, true}},
		{"no upstream", caddyhttp.Error(503, errors.New("no upstreams available")), httpx.Upload{}, Result{Gateway, 503, true}},
		{"lost", io.EOF, httpx.Upload{}, Result{Backend, 503, false}},
		{"reset", fmt.Errorf("read: %w", syscall.ECONNRESET), httpx.Upload{}, Result{Backend, 503, false}},
		{"lost under an upload", fmt.Errorf("write: %w", syscall.EPIPE), unfinished, Result{Client, 503, false}},
		{"too slow", os.ErrDeadlineExceeded, httpx.Upload{}, Result{Backend, 504, false}},
		{"too slow to take an upload", context.DeadlineExceeded, unfinished, Result{Backend, 504, false}},
		{"total time over while the client pauses", context.DeadlineExceeded, waiting, Result{Client, 408, false}},
		{"client has left", fmt.Errorf("round trip: %w", context.Canceled), httpx.Upload{}, Result{Client, 499, false}},
		{"client has left its upload", io.EOF, httpx.Upload{Err: io.ErrUnexpectedEOF, Unfinished: true}, Result{Client, 499, false}},
		{"client is too slow", io.EOF, httpx.Upload{Err: os.ErrDeadlineExceeded}, Result{Client, 408, false}},
		{"body too large", io.EOF, httpx.Upload{Err: &http.MaxBytesError{}}, Result{Client, 413, false}},
		{"malformed chunk", io.EOF, httpx.Upload{Err: entry.MalformedError{Cause: errors.New("invalid byte in chunk length")}}, Result{Client, 400, false}},
		{"method", errors.New(`net/http: invalid method "A B"`), httpx.Upload{}, Result{Client, 400, true}},
		{"offer over HTTP/2", errors.New(`http2: invalid Upgrade request header: ["x"]`), httpx.Upload{}, Result{Client, 400, true}},
		{"nonsense", errors.New("malformed HTTP response"), httpx.Upload{}, Result{Backend, 502, false}},
		{"within an error with a status", caddyhttp.Error(502, io.EOF), httpx.Upload{}, Result{Backend, 503, false}},
		{"refused by a handler", caddyhttp.Error(403, errors.New("no")), httpx.Upload{}, Result{Client, 403, false}},
		{"classified already", caddyhttp.Error(503, Error{io.EOF, Result{Client, 503, false}}), httpx.Upload{}, Result{Client, 503, false}},
	} {
		if got := Classify(0, tc.err, tc.upload); got != tc.want {
			t.Errorf("%s: got %+v, want %+v", tc.what, got, tc.want)
		}
	}
	for status := 200; status < 600; status++ {
		want := None
		switch {
		case status >= 400 && status < 500, status == 501, status >= 505 && status <= 508, status == 510, status == 511:
			want = Client
		case status >= 500:
			want = Backend
		}
		if got := Classify(status, nil, httpx.Upload{}).Cause; got != want {
			t.Errorf("status %d: got %s, want %s", status, got, want)
		}
	}
}
