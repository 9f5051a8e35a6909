// Command backend is the service behind rgate in the demo and in the tests: it
// reports what it received, and misbehaves on request.
//
// The last segment of the path selects what it does, so that everything works
// behind any path prefix:
//
//	…/plain       61 bytes of text, as cheaply as possible
//	…/count       what this process has seen: requests in all and by method, now
//	              and at most at once; neither itself nor /healthz is counted
//	…/healthz     200, or 503 after POST …/healthz?up=0 (back with ?up=1)
//	…/sse         server-sent events: ?n=5 of them (0: endless), one ?every=100ms
//	…/ws          a WebSocket that echoes every message
//	…/upload      reads the body without keeping it and responds with its length
//	…/trailers    the echo, then trailers: X-Body-Sha256 and those of the request
//	anything else a JSON echo of the request (see [echo])
//
// A request with a gRPC content type gets its body back as it arrives, then the
// trailer Grpc-Status: 0, on any path. Queries change any response, in
// this order:
//
//	?delay=200ms  wait before anything else
//	?drop=1       close the connection before responding
//	?garbage=1    send something that is not HTTP, then close (HTTP/1 only)
//	?cut=1000     announce 2000 bytes, close after 1000
//	?status=503   respond with this status
//	?bytes=65536  a body of that many bytes, in place of the JSON
//	?read=0       do not read the body of the request (no 100 Continue then)
//
// Every response names its sender in the headers X-Service and X-Container.
//
// It speaks HTTP/1.1 and HTTP/2 on every listener, without TLS too (h2c). On
// SIGTERM or SIGINT it finishes the requests in flight and exits with status 0.
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

// options are the settings of the command line and the environment.
type options struct {
	// Addresses to listen on, separated by commas. Default: every port in PORT
	// (`8080,9090`), else 8080.
	listen string

	// An address to listen on with TLS, with a self-signed certificate made at
	// start. Default: none.
	listenTLS string

	// The name in the responses. Default: SERVICE, else `backend`.
	service string

	// How long to wait before listening at all. Default: 0.
	slowStart time.Duration

	// How long to go on accepting requests after SIGTERM. Default: 0.
	linger time.Duration

	// How long the requests in flight may take to end after that. Default: 8s,
	// which is within the ten seconds of `docker stop`.
	grace time.Duration

	// Whether to start as unhealthy. Default: false.
	unhealthy bool

	// Whether to ask a running backend for its health and exit 0 or 1, as the
	// HEALTHCHECK of a container without a shell. It asks at the first port of
	// PORT, so containers choose their port by PORT rather than by -listen.
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
	flag.BoolVar(&opts.healthcheck, "healthcheck", false, "ask a running backend for its health and exit")
	flag.Parse()
	return opts
}

// listenDefault turns `8080,9090` into `:8080,:9090`.
func listenDefault(ports string) string {
	addresses := strings.Split(cmp.Or(ports, "8080"), ",")
	for i, port := range addresses {
		addresses[i] = ":" + strings.TrimSpace(port)
	}
	return strings.Join(addresses, ",")
}

// run serves until ctx is done, then ends gracefully.
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

// listen opens every listener, or none.
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

// checkHealth asks the backend of this container.
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
