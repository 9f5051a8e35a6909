package bandwidth

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/rgate/rgate/bandwidth/store"
)

// slowVerdict returns a limit state of 10 KB per second.
func slowVerdict(direction string) *limitState {
	return &limitState{rate: rateLimiter(10_000, nil), down: direction != string(store.Ingress), up: direction != string(store.Egress)}
}

// took checks the duration of a transfer. The first burst is not delayed.
func took(t *testing.T, what string, began time.Time, bytes int) {
	t.Helper()
	want := time.Duration(bytes-2500) * time.Second / 10_000
	if got := time.Since(began); got < want-time.Millisecond || got > want+time.Second {
		t.Errorf("%s: %d bytes took %v, want %v", what, bytes, got, want)
	}
}

func TestResponsesAreSlowedDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := slowVerdict(string(store.Egress))
		body := bytes.Repeat([]byte("0123456789"), 5000)
		for what, next := range map[string]func(w http.ResponseWriter) error{
			"one write": func(w http.ResponseWriter) error { _, err := w.Write(body); return err },
			"many":      func(w http.ResponseWriter) error { return eachByte(body, 10, w) },
			"a copy":    func(w http.ResponseWriter) error { _, err := io.Copy(w, bytes.NewReader(body)); return err },
			"a ReadFrom": func(w http.ResponseWriter) error {
				_, err := w.(io.ReaderFrom).ReadFrom(bytes.NewReader(body))
				return err
			},
		} {
			time.Sleep(time.Second) // refill the shared limiter
			began := time.Now()
			w := httptest.NewRecorder()
			err := v.slowDown(w, quotaRequest(w, ""), caddyhttp.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) error { return next(w) }))
			if err != nil || !bytes.Equal(w.Body.Bytes(), body) {
				t.Fatalf("%s: %d bytes, %v", what, w.Body.Len(), err)
			}
			took(t, what, began, len(body))
		}
	})
}

func eachByte(body []byte, n int, w io.Writer) error {
	for len(body) > 0 {
		if _, err := w.Write(body[:n]); err != nil {
			return err
		}
		body = body[n:]
	}
	return nil
}

func TestRequestsShareThePace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := slowVerdict(directionTotal)
		began := time.Now()
		var all sync.WaitGroup
		for range 4 {
			all.Go(func() {
				w := httptest.NewRecorder()
				r := quotaRequest(w, "")
				r.Body = io.NopCloser(bytes.NewReader(make([]byte, 10_000)))
				_ = v.slowDown(w, r, caddyhttp.HandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
					_, err := io.Copy(w, r.Body)
					return err
				}))
				if w.Body.Len() != 10_000 {
					t.Errorf("%d bytes came through", w.Body.Len())
				}
			})
		}
		all.Wait()
		took(t, "four", began, 80_000) // both directions
	})
}

// A direction below its limit is not slowed down.
func TestOneDirectionIsSlowedDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		w := httptest.NewRecorder()
		r := quotaRequest(w, "")
		r.Body = io.NopCloser(bytes.NewReader(make([]byte, 20_000)))
		_ = slowVerdict(string(store.Ingress)).slowDown(w, r, caddyhttp.HandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
			_, err := w.Write(make([]byte, 1_000_000))
			return errors.Join(err, eachByte(make([]byte, 10), 10, w))
		}))
		if since := time.Since(began); since != 0 {
			t.Errorf("the response took %v", since)
		}
		_, _ = io.Copy(io.Discard, r.Body)
		took(t, "the request", began, 20_000)
	})
}

// A throttled request ends when its client disconnects.
func TestWhoLeavesIsNotSlowedDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		w := httptest.NewRecorder()
		err := slowVerdict(string(store.Egress)).slowDown(w, quotaRequest(w, "").WithContext(ctx), caddyhttp.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) error {
			_, err := w.Write(make([]byte, 1_000_000))
			return err
		}))
		if err == nil || time.Since(began) > time.Second {
			t.Errorf("got %v after %v", err, time.Since(began))
		}
	})
}

// hijackable is a response writer that supports Hijack.
type hijackable struct {
	*httptest.ResponseRecorder
	conn net.Conn
}

func (h hijackable) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return h.conn, bufio.NewReadWriter(bufio.NewReader(h.conn), bufio.NewWriter(h.conn)), nil
}

// halfConn is a connection that supports CloseWrite.
type halfConn struct {
	net.Conn
	closed *bool
}

func (c halfConn) CloseWrite() error {
	*c.closed = true
	return nil
}

func TestTakenOverConnectionsAreSlowedDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server := net.Pipe()
		closed := false
		w := hijackable{httptest.NewRecorder(), halfConn{server, &closed}}
		began := time.Now()
		go func() {
			_, _ = client.Write(make([]byte, 10_000))
			_, _ = io.CopyN(io.Discard, client, 10_000)
			_ = client.Close()
		}()
		err := slowVerdict(directionTotal).slowDown(w, quotaRequest(w, ""), caddyhttp.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) error {
			conn, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				return err
			}
			defer conn.Close()
			if _, err := io.CopyN(io.Discard, conn, 10_000); err != nil {
				return err
			}
			if _, err := conn.Write(make([]byte, 10_000)); err != nil {
				return err
			}
			return conn.(interface{ CloseWrite() error }).CloseWrite()
		}))
		if err != nil || !closed {
			t.Errorf("got %v, closed: %v", err, closed)
		}
		took(t, "both directions", began, 20_000)
	})
}

// The default rate is the allocation divided by the period, unless throttle_rate is set.
func TestPace(t *testing.T) {
	for _, c := range []struct {
		quota Quota
		used  limits
		want  float64
	}{
		{Quota{Egress: 2_592_000_000}, limits{2_592_000_000}, 1000},
		{Quota{Egress: 25_920_000_000, Ingress: 2_592_000}, limits{25_920_000_000, 1}, 10_000},
		{Quota{Egress: 25_920_000_000, Ingress: 2_592_000}, limits{25_920_000_000, 2_592_000}, 1000}, // the minimum rate
		{Quota{Egress: 1000, ThrottleRate: 50_000}, limits{1000}, 50_000},
	} {
		c.quota.Period, c.quota.AtLimit = "30d", limitThrottle
		terms := specOf(t, "backend", "web", &c.quota)
		start, end := terms.at(time.Date(2026, 11, 20, 0, 0, 0, 0, time.UTC))
		v := terms.evaluate(c.used, terms.limits, start, end, nil)
		if v == nil || float64(v.rate.Limit()) != c.want {
			t.Fatalf("%+v: got %+v", c.quota, v)
		}
		if next := terms.evaluate(c.used, terms.limits, start, end, v); next.rate != v.rate {
			t.Errorf("%+v: who waits is forgotten", c.quota)
		}
	}
}
