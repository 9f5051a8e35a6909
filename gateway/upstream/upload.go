package upstream

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"net/http/httptrace"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"

	"github.com/rgate/rgate/internal/entry"
	"github.com/rgate/rgate/internal/failure"
)

// readableConn is a connection to a backend that delays a write error until nothing
// more can be read. A backend that rejects an upload may respond and close the
// connection before it has read the body. The response must be read even if the rest of
// the body cannot be written (RFC 9112, section 9.6).
//
// Write errors are only delayed in HTTP/1. In HTTP/2, the goroutine that reads a
// connection also writes to it, and would wait for itself.
type readableConn struct {
	net.Conn
	drained chan struct{} // closed when nothing more can be read, or when writes must not wait
	once    sync.Once
}

// waitAfterWriteErrors makes an HTTP/1 transport use readableConn.
func waitAfterWriteErrors(t *reverseproxy.HTTPTransport) {
	if slices.Contains(t.Versions, "h2c") {
		return
	}
	dial := t.Transport.DialContext
	t.Transport.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return &readableConn{Conn: conn, drained: make(chan struct{})}, nil
	}
	if upgrade := t.Transport.TLSNextProto["h2"]; upgrade != nil {
		t.Transport.TLSNextProto["h2"] = func(authority string, conn *tls.Conn) http.RoundTripper {
			if c, ok := conn.NetConn().(*readableConn); ok {
				c.stopWaiting()
			}
			return upgrade(authority, conn)
		}
	}
}

// stopWaiting ends the wait of failed writes. Later writes do not wait.
func (c *readableConn) stopWaiting() { c.once.Do(func() { close(c.drained) }) }

func (c *readableConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if err != nil {
		c.stopWaiting()
	}
	return n, err
}

func (c *readableConn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	if err != nil && (errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET)) {
		<-c.drained // returns soon, because the connection is broken
	}
	return n, err
}

// Close closes the connection and ends the wait of a failed write.
func (c *readableConn) Close() error {
	c.stopWaiting()
	return c.Conn.Close()
}

// CloseWrite closes the write side of the connection, if possible. Tunnels need it.
func (c *readableConn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return c.Close()
}

// clientFault is the error of an attempt that failed because of the client. Caddy's
// proxy neither counts it as an upstream failure nor retries the request.
type clientFault struct{ error }

// Is makes Caddy's proxy handle the error like a canceled request.
func (clientFault) Is(target error) bool { return target == context.Canceled }

func (f clientFault) Unwrap() error { return f.error }

// faultWriter discards status 499, which Caddy's proxy writes for canceled requests, if
// the attempt has a fault. The service then returns an error with the fault's status.
type faultWriter struct {
	caddyhttp.ResponseWriterWrapper
	state *Request
}

func (w *faultWriter) WriteHeader(status int) {
	if status != failure.StatusClientClosedRequest || w.state.attempt.fault == nil {
		w.ResponseWriter.WriteHeader(status)
	}
}

// unlimited is a timeout that no request reaches.
const unlimited = 365 * 24 * time.Hour

// allowPause disables the read timeout of a request body that has not been read to its
// end.
func (q *Request) allowPause(r *http.Request) {
	if q.upload == nil || q.endPause != nil || !q.upload.State().Unfinished {
		return
	}
	if reader, _ := caddyhttp.IdleTimeoutsFromContext(r.Context()); reader != nil {
		q.endPause = reader.Override(unlimited, 0)
	}
}

// restoreReadLimit restores the read timeout for the server's reads after the handler.
func (q *Request) restoreReadLimit() {
	if q.endPause != nil {
		q.endPause()
		q.endPause = nil
	}
}

// prepare returns the request in a form that the transport can send. For h2c upstreams,
// it removes upgrade offers, which only HTTP/1.1 supports (RFC 9113, section 8.2.2). It
// also disables the read timeout of gRPC calls over HTTP/2.
func (q *Request) prepare(r *http.Request, via *reverseproxy.HTTPTransport) *http.Request {
	h2c := via.TLS == nil && slices.Contains(via.Versions, "h2c")
	if h2c && r.Header["Upgrade"] != nil {
		without := *r
		without.Header = r.Header.Clone()
		for _, field := range []string{"Upgrade", "Connection", "Http2-Settings"} {
			delete(without.Header, field)
		}
		r = &without
	}
	if q.upload == nil || !entry.IsGRPC(r) {
		return r
	}
	if h2c {
		q.allowPause(r)
		return r
	}
	return r.WithContext(httptrace.WithClientTrace(r.Context(), &httptrace.ClientTrace{
		GotConn: func(info httptrace.GotConnInfo) {
			if conn, ok := info.Conn.(*tls.Conn); ok && conn.ConnectionState().NegotiatedProtocol == "h2" {
				q.allowPause(r)
			}
		},
	}))
}

// Interface guards
var (
	_ net.Conn            = (*readableConn)(nil)
	_ http.ResponseWriter = (*faultWriter)(nil)
)
