package httpx

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// unsized returns a request whose body has an unknown length.
func unsized(body io.Reader) *http.Request {
	r := (&http.Request{Method: "GET", ProtoMajor: 3, Header: http.Header{}, ContentLength: -1, Body: io.NopCloser(body)})
	return r.WithContext(context.WithValue(context.Background(), caddyhttp.VarsCtxKey, make(map[string]any)))
}

func TestOneReadDecidesWhetherThereIsABody(t *testing.T) {
	r := unsized(strings.NewReader(""))
	if HasBody(r) || r.Body != http.NoBody || r.ContentLength != 0 {
		t.Errorf("an empty body is %v of length %d", r.Body, r.ContentLength)
	}
	for _, reader := range []func(io.Reader) io.Reader{iotest.OneByteReader, iotest.DataErrReader, iotest.HalfReader} {
		r := unsized(reader(strings.NewReader("body")))
		if first, again := HasBody(r), HasBody(r); !first || !again || r.ContentLength != -1 {
			t.Error("a body is taken for none")
		}
		if got, err := io.ReadAll(r.Body); string(got) != "body" || err != nil {
			t.Errorf("read %q and %v, want the body", got, err)
		}
	}
	broken := errors.New("broken")
	r = unsized(iotest.ErrReader(broken))
	if !HasBody(r) {
		t.Error("a body that cannot be read is taken for none")
	}
	if _, err := io.ReadAll(r.Body); err != broken {
		t.Errorf("got %v, want the error of the body", err)
	}
	r = unsized(iotest.ErrReader(broken))
	r.Header.Set("Upgrade", "websocket")
	if HasBody(r) {
		t.Error("a tunnel is taken for a body")
	}
}

func TestABodyThatDoesNotComeHoldsNothingUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		body, client := io.Pipe()
		r := unsized(body)
		start := time.Now()
		if first, again := HasBody(r), HasBody(r); !first || !again || time.Since(start) != probeTime {
			t.Errorf("it took %s", time.Since(start))
		}
		go func() {
			_, _ = io.WriteString(client, "late")
			_ = client.Close()
		}()
		if got, err := io.ReadAll(r.Body); string(got) != "late" || err != nil {
			t.Errorf("read %q and %v, want what came late", got, err)
		}
	})
}
