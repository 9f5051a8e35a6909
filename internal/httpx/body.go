package httpx

import (
	"context"
	"io"
	"net/http"
	"os"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/rgate/rgate/internal/entry"
	"github.com/rgate/rgate/internal/monotime"
)

// IsTunnel reports whether the body of a request is one direction of a WebSocket over
// HTTP/2 or HTTP/3. The gateway converts such a request to a GET with Upgrade, a field
// that clients cannot send in these versions (RFC 9113, section 8.2.2).
func IsTunnel(r *http.Request) bool {
	return r.ProtoMajor >= 2 && (r.Method == http.MethodConnect || r.Method == http.MethodGet && r.Header["Upgrade"] != nil)
}

// probeTime is the maximum wait for the first byte of a body of unknown length, as in
// net/http's transport.
const probeTime = 200 * time.Millisecond

const bodyProbedVar = "rgate.body_probed"

// HasBody reports whether a request has a body. If the length is unknown, as with
// chunks or over HTTP/3, it tries to read the first byte. At the end of the body, it
// sets the length to 0. After a byte or probeTime, the request has a body, which can
// still be read completely. Call HasBody only if the result is needed.
func HasBody(r *http.Request) bool {
	switch {
	case r.Body == nil, r.Body == http.NoBody, r.ContentLength == 0, IsTunnel(r):
		return false
	case r.ContentLength > 0:
		return true
	case caddyhttp.GetVar(r.Context(), bodyProbedVar) != nil:
		return true
	}
	body := &probedBody{source: r.Body, first: make(chan probe, 1)}
	go func() {
		var p probe
		for p.n == 0 && p.err == nil {
			p.n, p.err = body.source.Read(p.data[:])
		}
		body.first <- p
	}()
	timer := time.NewTimer(probeTime)
	defer timer.Stop()
	select {
	case p := <-body.first:
		if p.n == 0 && p.err == io.EOF {
			r.Body, r.ContentLength, r.TransferEncoding = http.NoBody, 0, nil
			return false
		}
		body.first <- p
	case <-timer.C:
	}
	r.Body = body
	caddyhttp.SetVar(r.Context(), bodyProbedVar, true)
	return true
}

// LacksBody reports whether requests with a method usually have no body. For other
// methods, HasBody can request a body whose client waits for 100 Continue.
func LacksBody(method string) bool {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodDelete, http.MethodTrace:
		return true
	}
	return false
}

// probe is the result of the first read of a body.
type probe struct {
	data [1]byte
	n    int
	err  error
}

// probedBody is a body whose first byte has been read or is being read.
type probedBody struct {
	source io.ReadCloser
	first  chan probe // receives the first byte
	begun  bool
}

func (b *probedBody) Read(p []byte) (int, error) {
	if b.begun || len(p) == 0 {
		return b.source.Read(p)
	}
	first := <-b.first
	b.begun = true
	if first.n == 0 {
		return 0, first.err
	}
	return copy(p, first.data[:]), first.err
}

func (b *probedBody) Close() error { return b.source.Close() }

// Upload is the progress of a request body.
type Upload struct {
	Err        error // error of reading the body
	Unfinished bool  // the body was not read to its end
	Waiting    bool  // the gateway is waiting for more data from the client, or was within stallTime
}

// WatchedBody is a request body that records its progress. The proxy may read it after
// the proxy's handler has returned.
type WatchedBody struct {
	io.ReadCloser
	ended   atomic.Bool
	stopped atomic.Bool // set by the gateway to make reads fail
	reading atomic.Int32
	last    atomic.Int64 // monotime of the end of the last read; 0: none
	failed  atomic.Pointer[error]
}

// stallTime is the maximum time for a backend to accept a part of a body. Beyond it,
// the gateway is waiting for the backend, not for the client.
const stallTime = 200 * time.Millisecond

const uploadVar = "rgate.upload"

// WatchBody replaces the body of a request with a WatchedBody, unless it is one
// already. It returns nil if the request has no body.
func WatchBody(r *http.Request) *WatchedBody {
	if r.Body == nil || r.Body == http.NoBody || r.ContentLength == 0 {
		return nil // Caddy may have wrapped it
	}
	body, ok := r.Body.(*WatchedBody)
	if !ok {
		body = &WatchedBody{ReadCloser: r.Body}
		r.Body = body
		caddyhttp.SetVar(r.Context(), uploadVar, body)
	}
	return body
}

// UploadOf returns the watched body of a request or of its copy, or nil.
func UploadOf(r *http.Request) *WatchedBody {
	if body, ok := r.Body.(*WatchedBody); ok {
		return body
	}
	body, _ := caddyhttp.GetVar(r.Context(), uploadVar).(*WatchedBody)
	return body
}

func (b *WatchedBody) Read(p []byte) (int, error) {
	b.reading.Add(1)
	n, err := b.ReadCloser.Read(p)
	switch err {
	case nil:
		b.last.Store(int64(monotime.Now()))
	case http.ErrBodyReadAfterClose: // caused by the gateway
	case io.EOF:
		b.ended.Store(true)
	default:
		if !b.stopped.Load() {
			b.failed.CompareAndSwap(nil, &err)
		}
	}
	b.reading.Add(-1)
	return n, err
}

// StopAfter makes reads of the body fail after the context's deadline, because a
// transport waits for the current read. If that read waits for data, the client has
// timed out. The caller must call release before the handler returns.
func (b *WatchedBody) StopAfter(ctx context.Context, w http.ResponseWriter, r *http.Request) (release func()) {
	done, stopBody := make(chan struct{}), entry.BodyStopper(w, r)
	stop := context.AfterFunc(ctx, func() {
		defer close(done)
		if state := b.State(); ctx.Err() != context.DeadlineExceeded || !state.Unfinished {
			return
		} else if state.Waiting {
			late := error(os.ErrDeadlineExceeded)
			b.failed.CompareAndSwap(nil, &late)
		} else if b.last.Load() == 0 {
			return // another backend may read the body
		}
		b.stopped.Store(true)
		stopBody()
	})
	return func() {
		if !stop() {
			<-done
		}
	}
}

// State returns the progress of the body. It is the zero value for a nil body.
func (b *WatchedBody) State() (u Upload) {
	if b == nil {
		return u
	}
	if failed := b.failed.Load(); failed != nil {
		u.Err = *failed
	}
	u.Unfinished = !b.ended.Load()
	last := b.last.Load()
	u.Waiting = u.Unfinished && (b.reading.Load() > 0 || last > 0 && monotime.Now()-time.Duration(last) < stallTime)
	return u
}
