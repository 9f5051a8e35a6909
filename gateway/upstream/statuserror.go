package upstream

import (
	"errors"
	"net/http"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/rgate/rgate/internal/failure"
)

// statusError sets the status code of a proxy error: 503 if the backend is unavailable,
// 504 after a timeout, 502 after another failure, such as a malformed response. Errors
// of the client have 400, 408, 413 or 499.
func statusError(r *http.Request, err error) error {
	var handlerErr caddyhttp.HandlerError
	if !errors.As(err, &handlerErr) {
		return err
	}
	switch handlerErr.StatusCode {
	case http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
	default:
		return err
	}
	result := failure.ClassifyRequest(r, 0, handlerErr.Err)
	if result.Status == http.StatusBadGateway { // may also be the status code of a response handler
		result.Status = handlerErr.StatusCode
	}
	handlerErr.StatusCode, handlerErr.Err = result.Status, failureOf(result, handlerErr.Err)
	return handlerErr
}

// failureOf wraps the cause of a failure in a failure.Error, to which fallbacks
// respond, unless the status is a client error.
func failureOf(result failure.Result, cause error) error {
	if result.Status < 500 {
		return cause
	}
	return failure.Error{Err: cause, Result: result}
}
