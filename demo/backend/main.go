// Command backend is the service behind rgate in demos and tests. It echoes requests
// and simulates faults.
//
// The last path segment selects the action, regardless of a path prefix:
//
//	…/plain       61 bytes of text, at minimal cost
//	…/count       counts of requests: total, by method, in flight, and the maximum
//	              in flight; excludes /plain, /count and /healthz
//	…/healthz     200, or 503 after POST …/healthz?up=0 (?up=1 reverts it)
//	…/sse         ?n=5 server-sent events (0: endless), at an interval of ?every=100ms
//	…/ws          a WebSocket that echoes every message
//	…/upload      discards the body and responds with its length
//	…/trailers    the length of the body, then the trailer X-Body-Sha256 and the
//	              trailers of the request
//	anything else a JSON echo of the request (see [echo])
//
// On all paths except /plain, /count and /healthz, the body of a request with a gRPC
// content type is echoed as a stream, followed by the trailer Grpc-Status with the value
// of ?grpc=0. On these paths, query parameters modify the response, in this order:
//
//	?delay=200ms  delay the response
//	?drop=1       close the connection before responding
//	?garbage=1    send invalid HTTP, then close the connection (HTTP/1 only)
//	?cut=1000     send Content-Length: 2000, close the connection after 1000 bytes
//	?status=503   respond with this status
//	?bytes=65536  a body of this size instead of JSON
//	?read=0       do not read the request body (and send no 100 Continue)
//
// All HTTP responses except the response of /plain have the headers X-Service and
// X-Container.
//
// All listeners support HTTP/1.1 and HTTP/2, also without TLS (h2c). On SIGTERM or
// SIGINT, the backend finishes the requests in flight and exits with status 0.
package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

// options holds the settings from flags and environment variables.
type options struct {
	// The addresses to listen on, separated by commas. Default: the ports in PORT
	// (`8080,9090`), else 8080.
	listen string

	// The address to listen on with TLS and a self-signed certificate, which is
	// generated at startup. Default: none.
	listenTLS string

	// The service name in responses. Default: SERVICE, else `backend`.
	service string

	// The delay before listening. Default: 0.
	slowStart time.Duration

	// The time during which requests are accepted after SIGTERM. Default: 0.
	linger time.Duration

	// The grace period for requests in flight after linger. Default: 8s, below the 10s
	// of `docker stop`.
	grace time.Duration

	// Whether to be unhealthy at startup. Default: false.
	unhealthy bool

	// Whether to check the health of a running backend and exit with status 0 or 1, as
	// a HEALTHCHECK command. It uses the first address in listen, so set the ports of a
	// container in PORT.
	healthcheck bool
}

func main() {
	log.SetFlags(0)
	log.SetPrefix("backend: ")
	opts := parseFlags()
	if opts.healthcheck {
		if err := checkHealth(opts); err != nil {
			log.Fatal(err)
		}
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := run(ctx, opts); err != nil {
		log.Fatal(err)
	}
}

func parseFlags() options {
	var opts options
	flag.StringVar(&opts.listen, "listen", listenDefault(os.Getenv("PORT")), "addresses to listen on, separated by commas")
	flag.StringVar(&opts.listenTLS, "listen-tls", "", "address to listen on with a self-signed certificate")
	flag.StringVar(&opts.service, "service", cmp.Or(os.Getenv("SERVICE"), "backend"), "name in the responses")
	flag.DurationVar(&opts.slowStart, "slow-start", 0, "how long to wait before listening")
	flag.DurationVar(&opts.linger, "linger", 0, "how long to accept requests after SIGTERM")
	flag.DurationVar(&opts.grace, "grace", 8*time.Second, "how long requests in flight may take after SIGTERM")
	flag.BoolVar(&opts.unhealthy, "unhealthy", false, "start as unhealthy")
	flag.BoolVar(&opts.healthcheck, "healthcheck", false, "check the health of a running backend and exit")
	flag.Parse()
	return opts
}

// listenDefault converts `8080,9090` to `:8080,:9090`.
func listenDefault(ports string) string {
	addresses := strings.Split(cmp.Or(ports, "8080"), ",")
	for i, port := range addresses {
		addresses[i] = ":" + strings.TrimSpace(port)
	}
	return strings.Join(addresses, ",")
}

// run serves until ctx is done, then shuts down gracefully.
func run(ctx context.Context, opts options) error {
	select {
	case <-time.After(opts.slowStart):
	case <-ctx.Done():
		return nil
	}
	listeners, err := listen(opts)
	if err != nil {
		return err
	}
	service := newService(opts.service, !opts.unhealthy)
	server := newServer(service)
	failed := make(chan error, len(listeners))
	for _, listener := range listeners {
		log.Printf("%s listens on %s", opts.service, listener.Addr())
		go func() { failed <- server.Serve(listener) }()
	}

	select {
	case err := <-failed:
		return fmt.Errorf("serving: %w", err)
	case <-ctx.Done():
	}
	service.healthy.Store(false)
	time.Sleep(opts.linger)
	grace, cancel := context.WithTimeout(context.Background(), opts.grace)
	defer cancel()
	if err := server.Shutdown(grace); err != nil {
		return errors.Join(fmt.Errorf("waiting for the requests in flight: %w", err), server.Close())
	}
	return nil
}

func newServer(handler http.Handler) *http.Server {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(true)
	protocols.SetUnencryptedHTTP2(true)
	return &http.Server{Handler: handler, Protocols: protocols, ReadHeaderTimeout: 10 * time.Second}
}

// listen opens all listeners. If one fails, it closes the others.
func listen(opts options) (listeners []net.Listener, err error) {
	defer func() {
		if err != nil {
			for _, listener := range listeners {
				_ = listener.Close()
			}
		}
	}()
	for address := range strings.SplitSeq(opts.listen, ",") {
		listener, err := net.Listen("tcp", address)
		if err != nil {
			return listeners, fmt.Errorf("listening: %w", err)
		}
		listeners = append(listeners, listener)
	}
	if opts.listenTLS != "" {
		certificate, err := selfSigned()
		if err != nil {
			return listeners, err
		}
		config := &tls.Config{
			Certificates: []tls.Certificate{certificate},
			NextProtos:   []string{"h2", "http/1.1"},
		}
		listener, err := tls.Listen("tcp", opts.listenTLS, config)
		if err != nil {
			return listeners, fmt.Errorf("listening with TLS: %w", err)
		}
		listeners = append(listeners, listener)
	}
	return listeners, nil
}

// checkHealth checks the health of the backend in this container.
func checkHealth(opts options) error {
	first, _, _ := strings.Cut(opts.listen, ",")
	_, port, err := net.SplitHostPort(first)
	if err != nil {
		return fmt.Errorf("reading the address to check: %w", err)
	}
	client := &http.Client{Timeout: 2 * time.Second}
	response, err := client.Get("http://" + net.JoinHostPort("127.0.0.1", port) + "/healthz")
	if err != nil {
		return fmt.Errorf("checking health: %w", err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("checking health: %s", response.Status)
	}
	return nil
}
