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

// writeFailures is a middleware that responds if the backend fails to serve a request.
// If the server has error routes (`handle_errors`), they respond. Other errors are
// returned.
func writeFailures(logger *zap.Logger, next caddyhttp.Handler) caddyhttp.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) error {
		err := next.ServeHTTP(w, r)
		if err == nil {
			return nil // avoids the allocations below
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
		state := requestStateOf(r)
		state.failure = failed.Err.Error()
		if policy.HasErrorRoutes(r.Context()) {
			return err
		}
		if c := logger.Check(zapcore.WarnLevel, "backend did not respond"); c != nil {
			c.Write(zap.String("backend", state.backend), zap.String("route", state.route.name),
				zap.String("upstream", state.Address()), zap.Int("status", handlerErr.StatusCode),
				zap.Stringer("blame", failed.Result.Cause), zap.Error(failed.Err))
		}
		policy.WriteStatus(w, r, handlerErr.StatusCode)
		return nil
	}
}
