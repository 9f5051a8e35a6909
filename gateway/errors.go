package gateway

import (
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/rgate/rgate/policy"
)

// upstreamError gives an error of the proxy the status that its client shall see:
// 503 for everything that means that the backend is down, 504 if it was reached
// and did not answer in time, 502 if it answered nonsense. A client that has left while
// it sent its body has 499.
func upstreamError(err error, upload *policy.WatchedBody) error {
	var handlerErr caddyhttp.HandlerError
	if !errors.As(err, &handlerErr) {
		return err
	}
	status := handlerErr.StatusCode
	var tooLarge *http.MaxBytesError
	switch {
	case status == policy.StatusClientClosedRequest:
		return err
	case upload.ClientLeft():
		handlerErr.StatusCode = policy.StatusClientClosedRequest
		return handlerErr
	case errors.As(err, &tooLarge):
		handlerErr.StatusCode = http.StatusRequestEntityTooLarge
		return handlerErr
	case upload.Malformed():
		handlerErr.StatusCode = http.StatusBadRequest
		return handlerErr
	case status == http.StatusBadGateway && isDown(err):
		status = http.StatusServiceUnavailable
	}
	switch status {
	case http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		handlerErr.StatusCode, handlerErr.Err = status, policy.Failure{Cause: handlerErr.Err}
		return handlerErr
	}
	return err
}

// isDown reports whether err means that no connection came about, or that it was
// lost before an answer began.
func isDown(err error) bool {
	var dial reverseproxy.DialError
	if errors.As(err, &dial) {
		return true
	}
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

// answerFailures is a middleware that answers in the place of a backend which
// did not, and passes on all other errors.
//
// If the server has error routes (`handle_errors`), the error goes to them.
func answerFailures(logger *zap.Logger, next caddyhttp.Handler) caddyhttp.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) error {
		err := next.ServeHTTP(w, r)
		var handlerErr caddyhttp.HandlerError
		var failed policy.Failure
		if err == nil || !errors.As(err, &failed) || !errors.As(err, &handlerErr) {
			return err
		}
		if handlerErr.StatusCode == http.StatusServiceUnavailable {
			if header := w.Header(); header.Get("Retry-After") == "" {
				header.Set("Retry-After", "1")
			}
		}
		ex := exchangeOf(r)
		ex.failure = failed.Cause.Error()
		if policy.HasErrorRoutes(r.Context()) {
			return err
		}
		if c := logger.Check(zapcore.WarnLevel, "backend did not answer"); c != nil {
			c.Write(zap.String("backend", ex.backend), zap.String("route", ex.route.name),
				zap.String("upstream", ex.dial), zap.Int("status", handlerErr.StatusCode), zap.Error(failed.Cause))
		}
		policy.WriteStatus(w, r, handlerErr.StatusCode)
		return nil
	}
}
