// Package failure classifies failures of forwarded requests: the cause, and the status
// for the client.
package failure

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"syscall"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"

	"github.com/rgate/rgate/internal/entry"
	"github.com/rgate/rgate/internal/httpx"
)

// Cause is the party that caused a failure.
type Cause uint8

const (
	// None means that the request did not fail.
	None Cause = iota
	// Client means that the request or its client caused the failure, which can happen
	// with a healthy backend.
	Client
	// Gateway means that the gateway could not send the request: no upstream, an open
	// circuit breaker, a full queue, or no file descriptor.
	Gateway
	// Backend means that the backend did not respond, or responded with an error.
	Backend
)

func (b Cause) String() string {
	return [...]string{"none", "client", "gateway", "backend"}[b]
}

// Result is the classification of an attempt to forward a request.
type Result struct {
	Cause Cause

	// The status of the response, or the status for the client if there is no response.
	Status int

	// Whether the backend received no part of the request. The request can then be sent
	// to another upstream, regardless of its method.
	Unsent bool
}

// TimedOut reports whether the backend received the request but did not respond in
// time.
func (v Result) TimedOut() bool { return v.Status == http.StatusGatewayTimeout }

// StatusClientClosedRequest is nginx's status for a client that closed the connection
// before the response.
const StatusClientClosedRequest = 499

// Error is the error of a backend that did not respond, or of a policy that rejected a
// request in front of the backend. It is wrapped in a caddyhttp.HandlerError with the
// status for the client. No response has been written, so that an outer handler or the
// gateway can respond.
type Error struct {
	Err    error
	Result Result // zero: unknown
}

func (f Error) Error() string { return f.Err.Error() }

// Unwrap returns the cause.
func (f Error) Unwrap() error { return f.Err }

// ClassifyRequest classifies an attempt to forward a request by the response status or,
// without a response, by the error.
func ClassifyRequest(r *http.Request, status int, err error) Result {
	if err == nil {
		return Classify(status, nil, httpx.Upload{})
	}
	if errors.Is(r.Context().Err(), context.Canceled) {
		err = context.Canceled
	}
	return Classify(status, err, httpx.UploadOf(r).State())
}

// Classify classifies an attempt to forward a request by the response status or,
// without a response, by the error and the progress of the request body.
func Classify(status int, err error, upload httpx.Upload) Result {
	if err == nil {
		return Result{Cause: causeOfStatus(status), Status: status}
	}
	if failure, ok := errors.AsType[Error](err); ok && failure.Result.Cause != None {
		return failure.Result
	}
	var handlerErr caddyhttp.HandlerError
	switch {
	case errors.Is(err, context.Canceled), strings.Contains(err.Error(), "operation was canceled"):
		return Result{Cause: Client, Status: StatusClientClosedRequest}
	case upload.Err != nil:
		return Result{Cause: Client, Status: uploadStatus(upload.Err)}
	case isNoUpstream(err):
		return Result{Cause: Gateway, Status: http.StatusServiceUnavailable, Unsent: true}
	case errors.As(err, &handlerErr) && handlerErr.StatusCode > 0 && handlerErr.StatusCode < 500:
		return Result{Cause: Client, Status: handlerErr.StatusCode}
	case isExhausted(err):
		return Result{Cause: Gateway, Status: http.StatusServiceUnavailable, Unsent: isDialError(err)}
	case isDialError(err):
		return Result{Cause: Backend, Status: http.StatusServiceUnavailable, Unsent: true}
	case isInvalidRequest(err):
		return Result{Cause: Client, Status: http.StatusBadRequest, Unsent: true}
	case isTimeout(err):
		if upload.Waiting {
			return Result{Cause: Client, Status: http.StatusRequestTimeout}
		}
		return Result{Cause: Backend, Status: http.StatusGatewayTimeout}
	case isLost(err):
		// A backend may reject an upload and close the connection before it has read
		// the body. Its response can then be lost (RFC 9112, section 9.6).
		if upload.Unfinished {
			return Result{Cause: Client, Status: http.StatusServiceUnavailable}
		}
		return Result{Cause: Backend, Status: http.StatusServiceUnavailable}
	}
	if handlerErr.StatusCode >= 500 {
		return Result{Cause: Backend, Status: handlerErr.StatusCode}
	}
	return Result{Cause: Backend, Status: http.StatusBadGateway}
}

// causeOfStatus returns the cause of a response with a status. Some 5xx statuses
// concern the request, so that any client can cause them.
func causeOfStatus(status int) Cause {
	switch {
	case status < 400:
		return None
	case status < 500:
		return Client
	}
	switch status {
	case http.StatusNotImplemented, // the method (RFC 9110, 15.6.2)
		http.StatusHTTPVersionNotSupported,
		http.StatusVariantAlsoNegotiates, // the resource (RFC 2295, 8.1)
		http.StatusInsufficientStorage,   // the representation to store (RFC 4918, 11.5)
		http.StatusLoopDetected,          // the resource (RFC 5842, 7.2), or a loop on the way to the backend
		http.StatusNotExtended,           // a policy that the request violates (RFC 2774, 7)
		http.StatusNetworkAuthenticationRequired:
		return Client
	}
	return Backend
}

// uploadStatus returns the status for a request whose body could not be read.
func uploadStatus(err error) int {
	var tooLarge *http.MaxBytesError
	var malformed entry.MalformedError
	switch {
	case errors.As(err, &tooLarge):
		return http.StatusRequestEntityTooLarge
	case isTimeout(err):
		return http.StatusRequestTimeout
	case errors.As(err, &malformed):
		return http.StatusBadRequest
	}
	return StatusClientClosedRequest
}

func isTimeout(err error) bool {
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout() || errors.Is(err, os.ErrDeadlineExceeded)
}

func isDialError(err error) bool {
	_, ok := errors.AsType[reverseproxy.DialError](err)
	return ok
}

// isExhausted reports whether the gateway lacks system resources for a connection. A
// DialError does not unwrap to its cause.
func isExhausted(err error) bool {
	for _, lack := range []error{syscall.EMFILE, syscall.ENFILE, syscall.EADDRNOTAVAIL, syscall.ENOBUFS, syscall.ENOMEM} {
		if strings.Contains(err.Error(), lack.Error()) {
			return true
		}
	}
	return false
}

// isNoUpstream reports whether Caddy's proxy had no upstream to select. Caddy exports
// no error value for it.
func isNoUpstream(err error) bool {
	return strings.HasSuffix(err.Error(), "no upstreams available")
}

// isInvalidRequest reports whether net/http rejected a request before it was sent.
func isInvalidRequest(err error) bool {
	for _, refusal := range []string{
		"net/http: invalid method", "net/http: invalid header", "net/http: invalid trailer", "http: no Host in request URL",
		"http: invalid Host header", "http2: invalid ", "request header list larger than",
	} {
		if strings.Contains(err.Error(), refusal) {
			return true
		}
	}
	return false
}

// isLost reports whether the connection was lost before the response began.
func isLost(err error) bool {
	for _, lost := range []error{
		io.EOF, io.ErrUnexpectedEOF, net.ErrClosed, syscall.ECONNRESET, syscall.EPIPE, syscall.ECONNABORTED,
	} {
		if errors.Is(err, lost) {
			return true
		}
	}
	// net/http and its HTTP/2 client export no error values for these.
	for _, lost := range []string{
		"server closed idle connection", "client connection lost", "server sent GOAWAY",
		"client connection force closed", "client conn not usable", "Transport connection broken: EOF",
	} {
		if strings.Contains(err.Error(), lost) {
			return true
		}
	}
	return false
}
