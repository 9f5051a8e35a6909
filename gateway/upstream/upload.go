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

// patientConn is a connection to a backend that withholds the error of a write while
// there may be something to read. A backend that refuses an upload responds and closes
// the connection before it has read the body: its response must be read although the
// rest of the body cannot be written any more (RFC 9112, section 9.6).
//
// It is for HTTP/1 alone. A client of HTTP/2 writes while it holds what its reader needs,
// and the reader itself writes: it would wait for itself.
type patientConn struct {
	net.Conn
	drained chan struct{} // closed once nothing more can be read, or no write is to wait
	once    sync.Once
}

// waitAfterWriteErrors makes a transport use patient connections for HTTP/1.
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
		return &patientConn{Conn: conn, drained: make(chan struct{})}, nil
	}
	if upgrade := t.Transport.TLSNextProto["h2"]; upgrade != nil {
		t.Transport.TLSNextProto["h2"] = func(authority string, conn *tls.Conn) http.RoundTripper {
			if c, ok := conn.NetConn().(*patientConn); ok {
				c.stopWaiting()
			}
			return upgrade(authority, conn)
		}
	}
}

// stopWaiting ends writes that wait, and makes later ones return their errors at once.
func (c *patientConn) stopWaiting() { c.once.Do(func() { close(c.drained) }) }

func (c *patientConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if err != nil {
		c.stopWaiting()
	}
	return n, err
}

func (c *patientConn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	if err != nil && (errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET)) {
		<-c.drained // soon, for the connection is dead
	}
	return n, err
}

// Close closes the connection, which ends a write that waits.
func (c *patientConn) Close() error {
	c.stopWaiting()
	return c.Conn.Close()
}

// CloseWrite closes the half of a tunnel.
func (c *patientConn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return c.Close()
}

// clientFault is the error of an attempt that failed because of the client, for which
// Caddy's proxy neither counts a failure of the upstream nor tries another one.
type clientFault struct{ error }

// Is makes the proxy take the error for that of a client that has left.
func (clientFault) Is(target error) bool { return target == context.Canceled }

func (f clientFault) Unwrap() error { return f.error }

// faultWriter keeps the status of a client that has left from one that is to get
// another.
type faultWriter struct {
	caddyhttp.ResponseWriterWrapper
	state *Request
}

func (w *faultWriter) WriteHeader(status int) {
	if status != failure.StatusClientClosedRequest || w.state.attempt.fault == nil {
		w.ResponseWriter.WriteHeader(status)
	}
}

// unlimited is longer than any request.
const unlimited = 365 * 24 * time.Hour

// allowPause lifts the limit of how long the client may pause while it sends the request's
// body.
func (q *Request) allowPause(r *http.Request) {
	if q.upload == nil || q.endPause != nil || !q.upload.State().Unfinished {
		return
	}
	if reader, _ := caddyhttp.IdleTimeoutsFromContext(r.Context()); reader != nil {
		q.endPause = reader.Override(unlimited, 0)
	}
}

// restoreReadLimit restores the limit for what the server does after the handler.
func (q *Request) restoreReadLimit() {
	if q.endPause != nil {
		q.endPause()
		q.endPause = nil
	}
}

// prepare returns the request in the form that a transport can send. An upstream of HTTP/2
// gets no offer to switch protocols, which exists in HTTP/1.1 alone (RFC 9113, section
// 8.2.2), and the client of a gRPC call to it may pause without limit.
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
	_ net.Conn            = (*patientConn)(nil)
	_ http.ResponseWriter = (*faultWriter)(nil)
)
