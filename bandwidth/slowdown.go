package bandwidth

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"golang.org/x/time/rate"
)

// slowDown serves a request whose bodies are held to a pace.
func (v *limitState) slowDown(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	slow := &slowWriter{ResponseWriterWrapper: caddyhttp.ResponseWriterWrapper{ResponseWriter: w}, ctx: r.Context()}
	if v.down {
		slow.down = v.pace
	}
	if v.up {
		slow.up = v.pace
		if r.Body != nil && r.Body != http.NoBody {
			r.Body = &slowBody{r.Body, r.Context(), v.pace}
		}
	}
	return next.ServeHTTP(slow, r)
}

// slowBody is the body of a request.
type slowBody struct {
	io.ReadCloser
	ctx  context.Context
	pace *rate.Limiter
}

func (b *slowBody) Read(p []byte) (int, error) { return readSlowly(b.ctx, b.ReadCloser, b.pace, p) }

// readSlowly takes the time for what it has read, so that the next portion comes later.
func readSlowly(ctx context.Context, from io.Reader, pace *rate.Limiter, p []byte) (int, error) {
	if pace == nil {
		return from.Read(p)
	}
	n, err := from.Read(p[:min(len(p), pace.Burst())])
	if n > 0 {
		if late := pace.WaitN(ctx, n); late != nil && err == nil {
			err = late
		}
	}
	return n, err
}

// writeSlowly takes the time for each portion before it writes it.
func writeSlowly(ctx context.Context, to io.Writer, pace *rate.Limiter, p []byte) (written int, err error) {
	if pace == nil {
		return to.Write(p)
	}
	for len(p) > 0 {
		portion := p[:min(len(p), pace.Burst())]
		if err := pace.WaitN(ctx, len(portion)); err != nil {
			return written, err
		}
		n, err := to.Write(portion)
		written += n
		if err != nil {
			return written, err
		}
		p = p[n:]
	}
	return written, nil
}

// slowWriter holds the body of a response to a pace, and a connection that is taken
// over in both directions.
type slowWriter struct {
	caddyhttp.ResponseWriterWrapper
	ctx      context.Context
	down, up *rate.Limiter // nil for no bound
}

func (w *slowWriter) Write(p []byte) (int, error) {
	if w.down == nil {
		return w.ResponseWriter.Write(p)
	}
	return writeSlowly(w.ctx, flushed{w.ResponseWriter}, w.down, p)
}

// flushed sends what it writes at once: a client that waits for it would have to wait
// until there is enough to fill a buffer.
type flushed struct{ http.ResponseWriter }

func (w flushed) Write(p []byte) (int, error) {
	n, err := w.ResponseWriter.Write(p)
	if err == nil {
		_ = http.NewResponseController(w.ResponseWriter).Flush() // it is an attempt
	}
	return n, err
}

// ReadFrom writes in portions, too: what is copied from a file or a connection by other
// means would not be held to anything.
func (w *slowWriter) ReadFrom(r io.Reader) (int64, error) {
	if w.down == nil {
		return w.ResponseWriterWrapper.ReadFrom(r)
	}
	return io.Copy(struct{ io.Writer }{w}, r)
}

func (w *slowWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, buf, err := http.NewResponseController(w.ResponseWriter).Hijack()
	if err != nil {
		return conn, buf, err
	}
	slow := &slowConn{Conn: conn, down: w.down, up: w.up}
	slow.ctx, slow.cancel = context.WithCancel(context.WithoutCancel(w.ctx))
	if half, ok := conn.(interface{ CloseWrite() error }); ok {
		return slowHalfCloser{slow, half}, buf, nil
	}
	return slow, buf, nil
}

// slowConn is a connection that has been taken over. What is in its buffers already
// passes.
type slowConn struct {
	net.Conn
	ctx      context.Context // until it is closed
	cancel   context.CancelFunc
	down, up *rate.Limiter
}

func (c *slowConn) Read(p []byte) (int, error) { return readSlowly(c.ctx, c.Conn, c.up, p) }

func (c *slowConn) Write(p []byte) (int, error) { return writeSlowly(c.ctx, c.Conn, c.down, p) }

func (c *slowConn) Close() error {
	c.cancel()
	return c.Conn.Close()
}

// slowHalfCloser is a slowConn of which one half can be closed: proxies look whether a
// connection has the method.
type slowHalfCloser struct {
	*slowConn
	half interface{ CloseWrite() error }
}

func (c slowHalfCloser) CloseWrite() error { return c.half.CloseWrite() }
