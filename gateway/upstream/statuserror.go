package upstream

import (
	"errors"
	"net/http"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/rgate/rgate/internal/failure"
)

// statusError sets the status of an error of the proxy: 503 if the backend is down, 504 if
// it was reached and did not respond in time, 502 if its response is malformed. Errors that
// the client caused have 400, 408, 413 or 499.
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
	if result.Status == http.StatusBadGateway { // or the status of a response handler
		result.Status = handlerErr.StatusCode
	}
	handlerErr.StatusCode, handlerErr.Err = result.Status, failureOf(result, handlerErr.Err)
	return handlerErr
}

// failureOf marks a cause as a failure that a fallback may respond to, unless the client
// caused it.
func failureOf(result failure.Result, cause error) error {
	if result.Status < 500 {
		return cause
	}
	return failure.Error{Err: cause, Result: result}
}
