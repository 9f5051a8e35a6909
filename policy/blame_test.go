package policy

import (
	"context"
	"encoding/json"
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
)

func TestJudge(t *testing.T) {
	refused := reverseproxy.NewDialError(&net.OpError{Op: "dial", Err: syscall.ECONNREFUSED})
	unfinished, waiting := Upload{Unfinished: true}, Upload{Unfinished: true, Waiting: true}
	for _, tc := range []struct {
		what   string
		err    error
		upload Upload
		want   Verdict
	}{
		{"refused", refused, Upload{}, Verdict{BlameBackend, 503, true}},
		{"refused under an upload", refused, unfinished, Verdict{BlameBackend, 503, true}},
		{"no file descriptor", reverseproxy.NewDialError(syscall.EMFILE), Upload{}, Verdict{BlameGateway, 503, true}},
		{"no upstream", caddyhttp.Error(503, errors.New("no upstreams available")), Upload{}, Verdict{BlameGateway, 503, true}},
		{"lost", io.EOF, Upload{}, Verdict{BlameBackend, 503, false}},
		{"reset", fmt.Errorf("read: %w", syscall.ECONNRESET), Upload{}, Verdict{BlameBackend, 503, false}},
		{"lost under an upload", fmt.Errorf("write: %w", syscall.EPIPE), unfinished, Verdict{BlameClient, 503, false}},
		{"too slow", os.ErrDeadlineExceeded, Upload{}, Verdict{BlameBackend, 504, false}},
		{"too slow to take an upload", context.DeadlineExceeded, unfinished, Verdict{BlameBackend, 504, false}},
		{"total time over while the client pauses", context.DeadlineExceeded, waiting, Verdict{BlameClient, 408, false}},
		{"client has left", fmt.Errorf("round trip: %w", context.Canceled), Upload{}, Verdict{BlameClient, 499, false}},
		{"client has left its upload", io.EOF, Upload{Err: io.ErrUnexpectedEOF, Unfinished: true}, Verdict{BlameClient, 499, false}},
		{"client is too slow", io.EOF, Upload{Err: os.ErrDeadlineExceeded}, Verdict{BlameClient, 408, false}},
		{"body too large", io.EOF, Upload{Err: &http.MaxBytesError{}}, Verdict{BlameClient, 413, false}},
		{"malformed chunk", io.EOF, Upload{Err: entry.MalformedError{Cause: errors.New("invalid byte in chunk length")}}, Verdict{BlameClient, 400, false}},
		{"method", errors.New(`net/http: invalid method "A B"`), Upload{}, Verdict{BlameClient, 400, true}},
		{"offer over HTTP/2", errors.New(`http2: invalid Upgrade request header: ["x"]`), Upload{}, Verdict{BlameClient, 400, true}},
		{"nonsense", errors.New("malformed HTTP response"), Upload{}, Verdict{BlameBackend, 502, false}},
		{"within an error with a status", caddyhttp.Error(502, io.EOF), Upload{}, Verdict{BlameBackend, 503, false}},
		{"refused by a handler", caddyhttp.Error(403, errors.New("no")), Upload{}, Verdict{BlameClient, 403, false}},
		{"judged already", caddyhttp.Error(503, Failure{io.EOF, Verdict{BlameClient, 503, false}}), Upload{}, Verdict{BlameClient, 503, false}},
	} {
		if got := Judge(0, tc.err, tc.upload); got != tc.want {
			t.Errorf("%s: got %+v, want %+v", tc.what, got, tc.want)
		}
	}
	for status := 200; status < 600; status++ {
		want := BlameNone
		switch {
		case status >= 400 && status < 500, status == 501, status >= 505 && status <= 508, status == 510, status == 511:
			want = BlameClient
		case status >= 500:
			want = BlameBackend
		}
		if got := Judge(status, nil, Upload{}).Blame; got != want {
			t.Errorf("status %d: got %s, want %s", status, got, want)
		}
	}
}

func TestTimeoutTellsZeroFromNothing(t *testing.T) {
	type options struct {
		Limit Timeout `json:"limit,omitempty"`
	}
	for text, want := range map[string]Timeout{`{}`: 0, `{"limit":null}`: 0, `{"limit":0}`: TimeoutOff, `{"limit":"0s"}`: TimeoutOff, `{"limit":"1s"}`: 1e9} {
		var o options
		if err := json.Unmarshal([]byte(text), &o); err != nil || o.Limit != want {
			t.Errorf("%s: got %d, %v, want %d", text, o.Limit, err, want)
		}
		encoded, err := json.Marshal(o)
		again := options{}
		if err != nil || json.Unmarshal(encoded, &again) != nil || again != o {
			t.Errorf("%s: encoded as %s, read as %+v, %v", text, encoded, again, err)
		}
	}
}
