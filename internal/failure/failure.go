// Package failure classifies the outcome of a request that was forwarded: who caused its failure, and which
// status the client receives.
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

// Cause says who caused a failure.
type Cause uint8

const (
	// None means that the request did not fail.
	None Cause = iota
	// Client means that the request or its client did, or that any client could
	// cause the same failure of a backend that is well.
	Client
	// Gateway means that the gateway could not send the request: no upstream, an
	// open circuit breaker, a full queue, no file descriptor.
	Gateway
	// Backend means that the backend did not respond, or responded with an error.
	Backend
)

func (b Cause) String() string {
	return [...]string{"none", "client", "gateway", "backend"}[b]
}

// Result is what follows from the end of an attempt to forward a request.
type Result struct {
	Cause Cause

	// The status for the client, if there is no response.
	Status int

	// Whether the backend has received nothing of the request, which can then be sent
	// elsewhere, whatever its method.
	Unsent bool
}

// TimedOut reports whether a backend that was reached did not respond in time.
func (v Result) TimedOut() bool { return v.Status == http.StatusGatewayTimeout }

// StatusClientClosedRequest is nginx's status for a client that left before it had
// an answer.
const StatusClientClosedRequest = 499

// Error is the error of a backend that did not answer, or of a policy that did
// not let a request through to it, within a caddyhttp.HandlerError with the status
// for the client. Nothing has been written: a handler further out may answer in its
// place, and in the end the gateway does.
type Error struct {
	Err    error
	Result Result // without blame if it is not known
}

func (f Error) Error() string { return f.Err.Error() }

// Unwrap returns the cause.
func (f Error) Unwrap() error { return f.Err }

// ClassifyRequest judges an attempt to forward a request by the status of its response,
// or if there is none, by the error.
func ClassifyRequest(r *http.Request, status int, err error) Result {
	if err == nil {
		return Classify(status, nil, httpx.Upload{})
	}
	if errors.Is(r.Context().Err(), context.Canceled) {
		err = context.Canceled
	}
	return Classify(status, err, httpx.UploadOf(r).State())
}

// Classify says who is to blame for the end of an attempt to forward a request: its status
// if there is a response, else its error, given how far the request's body came.
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
		// A backend may refuse an upload and close the connection before it has read the
		// body, by which its response can be lost (RFC 9112, 9.6).
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

// causeOfStatus says who caused a response. Some statuses from 500 on are about the
// request, so that any client can provoke them.
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
		http.StatusLoopDetected,          // the resource (RFC 5842, 7.2), or the way to the backend
		http.StatusNotExtended,           // a policy that the request does not meet (RFC 2774, 7)
		http.StatusNetworkAuthenticationRequired:
		return Client
	}
	return Backend
}

// uploadStatus is the status for a request whose body could not be read.
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

// isExhausted reports whether the gateway's own system has no more of what a
// connection takes. A DialError does not unwrap to it.
func isExhausted(err error) bool {
	for _, lack := range []error{syscall.EMFILE, syscall.ENFILE, syscall.EADDRNOTAVAIL, syscall.ENOBUFS, syscall.ENOMEM} {
		if strings.Contains(err.Error(), lack.Error()) {
			return true
		}
	}
	return false
}

// isNoUpstream reports whether Caddy's proxy had no upstream to choose, for which it has
// no exported error.
func isNoUpstream(err error) bool {
	return strings.HasSuffix(err.Error(), "no upstreams available")
}

// isInvalidRequest reports whether net/http refused to send a request.
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

// isLost reports whether a connection was lost before a response began.
func isLost(err error) bool {
	for _, lost := range []error{
		io.EOF, io.ErrUnexpectedEOF, net.ErrClosed, syscall.ECONNRESET, syscall.EPIPE, syscall.ECONNABORTED,
	} {
		if errors.Is(err, lost) {
			return true
		}
	}
	// net/http and its HTTP/2 client have no exported errors for these.
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
