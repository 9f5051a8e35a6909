package upstream

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"
	"golang.org/x/net/http2"
)

// The reader of an HTTP/2 connection also writes, to acknowledge settings and pings. If
// its write waited until nothing more can be read, it would block the connection.
func TestConnectionsOfHTTP2DoNotWaitAfterAFailedWrite(t *testing.T) {
	for name, transport := range map[string]*reverseproxy.HTTPTransport{
		"h2c":   {Versions: []string{"h2c", "2"}},
		"https": {Versions: []string{"1.1", "2"}, TLS: &reverseproxy.TLSConfig{InsecureSkipVerify: true}},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := caddy.NewContext(caddy.Context{Context: t.Context()})
			defer cancel()
			if err := transport.Provision(ctx); err != nil {
				t.Fatal(err)
			}
			waitAfterWriteErrors(transport)
			url := name + "://" + resettingServer(t, transport.TLS != nil)
			if name == "h2c" {
				url = "http" + url[len(name):]
			}
			for range 4 {
				limited, cancel := context.WithTimeout(t.Context(), 10*time.Second)
				r, err := http.NewRequestWithContext(limited, http.MethodGet, url, nil)
				if err != nil {
					t.Fatal(err)
				}
				response, err := transport.Transport.RoundTrip(r)
				if err == nil {
					_ = response.Body.Close()
				}
				if err == nil || errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("the request ended with %v, want the error of the connection", err)
				}
				cancel()
			}
		})
	}
}

// resettingServer starts an HTTP/2 server that sends more pings than it reads and then
// resets the connection. It returns the address.
func resettingServer(t *testing.T, overTLS bool) string {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	certified := httptest.NewTLSServer(nil)
	certified.Close()
	config := &tls.Config{Certificates: certified.TLS.Certificates, NextProtos: []string{"h2"}}
	serve := func(raw net.Conn) {
		conn := raw
		if overTLS {
			conn = tls.Server(raw, config)
		}
		_, _ = conn.Read(make([]byte, 10))
		framer := http2.NewFramer(conn, conn)
		_ = framer.WriteSettings()
		for range 200 {
			_ = framer.WritePing(false, [8]byte{})
		}
		_ = raw.(*net.TCPConn).SetLinger(0)
		_ = raw.Close()
	}
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go serve(conn)
		}
	}()
	return listener.Addr().String()
}
