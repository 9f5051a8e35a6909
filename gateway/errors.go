package gateway

import (
	"errors"
	"net/http"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/rgate/rgate/internal/failure"
	"github.com/rgate/rgate/policy"
)

// upstreamError gives an error of the proxy the status for the client: 503 if the
// backend is down, 504 if it was reached and did not respond in time, 502 if its
// response is malformed. What the client caused is 400, 408, 413 or 499.
func upstreamError(r *http.Request, err error) error {
	var handlerErr caddyhttp.HandlerError
	if !errors.As(err, &handlerErr) {
		return err
	}
	switch handlerErr.StatusCode {
	case http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
	default:
		return err
	}
	verdict := failure.ClassifyRequest(r, 0, handlerErr.Err)
	if verdict.Status == http.StatusBadGateway { // or what a handler of responses has chosen
		verdict.Status = handlerErr.StatusCode
	}
	handlerErr.StatusCode, handlerErr.Err = verdict.Status, failureOf(verdict, handlerErr.Err)
	return handlerErr
}

// failureOf is the cause of a failure that others may respond to in place of the
// backend, unless the client is to learn of its own mistake.
func failureOf(verdict failure.Result, cause error) error {
	if verdict.Status < 500 {
		return cause
	}
	return failure.Error{Err: cause, Result: verdict}
}

// answerFailures is a middleware that answers in the place of a backend which
// did not, and passes on all other errors.
//
// If the server has error routes (`handle_errors`), the error goes to them.
func answerFailures(logger *zap.Logger, next caddyhttp.Handler) caddyhttp.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) error {
		err := next.ServeHTTP(w, r)
		if err == nil {
			return nil // without the allocations of the variables below
		}
		var handlerErr caddyhttp.HandlerError
		var failed failure.Error
		if !errors.As(err, &failed) || !errors.As(err, &handlerErr) {
			return err
		}
		if handlerErr.StatusCode == http.StatusServiceUnavailable {
			if header := w.Header(); header.Get("Retry-After") == "" {
				header.Set("Retry-After", "1")
			}
		}
		ex := exchangeOf(r)
		ex.failure = failed.Err.Error()
		if policy.HasErrorRoutes(r.Context()) {
			return err
		}
		if c := logger.Check(zapcore.WarnLevel, "backend did not answer"); c != nil {
			c.Write(zap.String("backend", ex.backend), zap.String("route", ex.route.name),
				zap.String("upstream", ex.dial), zap.Int("status", handlerErr.StatusCode),
				zap.Stringer("blame", failed.Result.Cause), zap.Error(failed.Err))
		}
		policy.WriteStatus(w, r, handlerErr.StatusCode)
		return nil
	}
}
