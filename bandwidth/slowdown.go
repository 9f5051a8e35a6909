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

// slowDown calls next and limits the rate of the bodies.
func (s *limitState) slowDown(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	slow := &slowWriter{ResponseWriterWrapper: caddyhttp.ResponseWriterWrapper{ResponseWriter: w}, ctx: r.Context()}
	if s.down {
		slow.down = s.rate
	}
	if s.up {
		slow.up = s.rate
		if r.Body != nil && r.Body != http.NoBody {
			r.Body = &slowBody{r.Body, r.Context(), s.rate}
		}
	}
	return next.ServeHTTP(slow, r)
}

// slowBody is a request body with a rate limit.
type slowBody struct {
	io.ReadCloser
	ctx  context.Context
	rate *rate.Limiter
}

func (b *slowBody) Read(p []byte) (int, error) { return readSlowly(b.ctx, b.ReadCloser, b.rate, p) }

// readSlowly reads, then waits until the rate limit permits the bytes it read.
func readSlowly(ctx context.Context, from io.Reader, limiter *rate.Limiter, p []byte) (int, error) {
	if limiter == nil {
		return from.Read(p)
	}
	n, err := from.Read(p[:min(len(p), limiter.Burst())])
	if n > 0 {
		if late := limiter.WaitN(ctx, n); late != nil && err == nil {
			err = late
		}
	}
	return n, err
}

// writeSlowly writes in chunks, and waits before each chunk until the rate limit permits
// it.
func writeSlowly(ctx context.Context, to io.Writer, limiter *rate.Limiter, p []byte) (written int, err error) {
	if limiter == nil {
		return to.Write(p)
	}
	for len(p) > 0 {
		portion := p[:min(len(p), limiter.Burst())]
		if err := limiter.WaitN(ctx, len(portion)); err != nil {
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

// slowWriter limits the rate of a response body. For a hijacked connection, it limits
// both directions.
type slowWriter struct {
	caddyhttp.ResponseWriterWrapper
	ctx      context.Context
	down, up *rate.Limiter // nil means unlimited
}

func (w *slowWriter) Write(p []byte) (int, error) {
	if w.down == nil {
		return w.ResponseWriter.Write(p)
	}
	return writeSlowly(w.ctx, flushed{w.ResponseWriter}, w.down, p)
}

// flushed flushes after each write, so that a slow response is not buffered.
type flushed struct{ http.ResponseWriter }

func (w flushed) Write(p []byte) (int, error) {
	n, err := w.ResponseWriter.Write(p)
	if err == nil {
		_ = http.NewResponseController(w.ResponseWriter).Flush() // not every writer supports Flush
	}
	return n, err
}

// ReadFrom copies through Write: sendfile and splice would bypass the rate limit.
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

// slowConn is a hijacked connection with a rate limit. Bytes that are already buffered
// are not limited.
type slowConn struct {
	net.Conn
	ctx      context.Context // canceled by Close
	cancel   context.CancelFunc
	down, up *rate.Limiter
}

func (c *slowConn) Read(p []byte) (int, error) { return readSlowly(c.ctx, c.Conn, c.up, p) }

func (c *slowConn) Write(p []byte) (int, error) { return writeSlowly(c.ctx, c.Conn, c.down, p) }

func (c *slowConn) Close() error {
	c.cancel()
	return c.Conn.Close()
}

// slowHalfCloser is a slowConn with CloseWrite. Proxies check for this method.
type slowHalfCloser struct {
	*slowConn
	half interface{ CloseWrite() error }
}

func (c slowHalfCloser) CloseWrite() error { return c.half.CloseWrite() }
