package stats

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"net/http"
	"sync/atomic"
)

// meteredBody counts the bytes read from a request body. It is not pooled, because a
// transport can read from it after the handler has returned.
type meteredBody struct {
	io.ReadCloser
	shard   *shard
	account atomic.Pointer[account]
}

// meterBody wraps the body of a request unless it is empty.
func (w *writer) meterBody(r *http.Request) {
	// In HTTP/2, Body is never nil, but ContentLength may be 0.
	if r.Body == nil || r.Body == http.NoBody || r.ContentLength == 0 {
		return
	}
	w.body = &meteredBody{ReadCloser: r.Body, shard: w.shard}
	r.Body = w.body
}

func (b *meteredBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if n > 0 {
		flow{b.shard, b.account.Load()}.add(Traffic{IngressBody: uint64(n)})
	}
	return n, err
}

// meteredConn counts the bytes of a hijacked connection. It has no ReadFrom, because a
// splice reports its bytes only when the stream ends, possibly after hours.
type meteredConn struct {
	net.Conn
	flow
}

func (c *meteredConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if n > 0 {
		c.add(Traffic{IngressBody: uint64(n)})
	}
	return n, err
}

func (c *meteredConn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	if n > 0 {
		c.add(Traffic{EgressBody: uint64(n)})
	}
	return n, err
}

// halfCloser is a meteredConn with CloseWrite, because proxies check for this method.
type halfCloser struct {
	*meteredConn
	half interface{ CloseWrite() error }
}

func (c halfCloser) CloseWrite() error { return c.half.CloseWrite() }

// meterConn wraps a hijacked connection and its buffers. Bytes received early stay in the
// buffer and are counted.
func meterConn(conn net.Conn, buf *bufio.ReadWriter, f flow) (net.Conn, *bufio.ReadWriter) {
	if conn == nil || buf == nil {
		return conn, buf
	}
	metered := &meteredConn{Conn: conn, flow: f}
	wrapped := net.Conn(metered)
	if half, ok := conn.(interface{ CloseWrite() error }); ok {
		wrapped = halfCloser{metered, half}
	}

	early := buf.Reader.Buffered()
	if early > 0 {
		f.add(Traffic{IngressBody: uint64(early)})
		data, _ := buf.Peek(early)
		reader := bufio.NewReaderSize(io.MultiReader(bytes.NewReader(bytes.Clone(data)), wrapped), buf.Reader.Size())
		_, _ = reader.Peek(early) // refills the buffer
		buf.Reader = reader
	} else {
		buf.Reader.Reset(wrapped)
	}
	buf.Writer.Reset(wrapped)
	return wrapped, buf
}

// AttributeTo attributes the remaining traffic of a request, and its headers, to a
// consumer as well. It finds the meter by unwrapping w, the response writer of the
// handler. It returns false if traffic is not metered or not drained.
//
// Up to MaxConsumers are counted separately. Further consumers are counted as Other.
func AttributeTo(w http.ResponseWriter, consumer string) bool {
	for {
		switch under := w.(type) {
		case *writer:
			return under.attribute(consumer)
		case interface{ Unwrap() http.ResponseWriter }:
			w = under.Unwrap()
		default:
			return false
		}
	}
}

func (w *writer) attribute(consumer string) bool {
	if consumer == "" || w.series == nil || !w.series.rec.consumers.wanted.Load() {
		return false
	}
	w.account = w.series.account(consumer)
	if w.body != nil {
		w.body.account.Store(w.account)
	}
	return true
}
