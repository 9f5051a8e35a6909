package entry

import (
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"
)

// ownStatusVar is the name of the request variable that holds the HTTP status of a
// response that the gateway creates for a gRPC request.
const ownStatusVar = "rgate.own_status"

const httpErrorsVar = "rgate.grpc_http_errors"

// OwnResponse records that a handler creates the response, with its HTTP status. For
// gRPC clients, the response is converted after all handlers.
func OwnResponse(r *http.Request, status int) {
	if status >= 400 && IsGRPC(r) && caddyhttp.GetVar(r.Context(), httpErrorsVar) == nil {
		caddyhttp.SetVar(r.Context(), ownStatusVar, status)
	}
}

// KeepHTTPErrors disables the conversion to gRPC responses for a request.
func KeepHTTPErrors(r *http.Request) { caddyhttp.SetVar(r.Context(), httpErrorsVar, true) }

// IsGRPC reports whether a request is a gRPC call over HTTP/2 or HTTP/3.
func IsGRPC(r *http.Request) bool {
	if r.ProtoMajor < 2 || len(r.Header["Content-Type"]) == 0 {
		return false
	}
	rest, ok := strings.CutPrefix(r.Header["Content-Type"][0], "application/grpc")
	return ok && (rest == "" || rest[0] == '+' || rest[0] == ';')
}

// grpcWriter converts the gateway's own responses to gRPC: HTTP status 200, and the
// gRPC status in the header, which also serves as trailers (Trailers-Only in "gRPC over
// HTTP2").
type grpcWriter struct {
	caddyhttp.ResponseWriterWrapper
	request *http.Request
	began   bool
	own     bool // the gateway creates the response; its body is dropped
}

func (w *grpcWriter) WriteHeader(status int) {
	if w.began || status < 200 {
		w.ResponseWriter.WriteHeader(status)
		return
	}
	w.began = true
	own, _ := caddyhttp.GetVar(w.request.Context(), ownStatusVar).(int)
	if w.own = status >= 400 && own == status; !w.own {
		w.ResponseWriter.WriteHeader(status)
		return
	}
	header := w.Header()
	delete(header, "Content-Length")
	header["Content-Type"] = []string{"application/grpc"}
	header["Grpc-Status"] = []string{strconv.Itoa(grpcStatus(status))}
	header["Grpc-Message"] = []string{http.StatusText(status)}
	if extra, ok := w.request.Context().Value(caddyhttp.ExtraLogFieldsCtxKey).(*caddyhttp.ExtraLogFields); ok {
		extra.Add(zap.Int("http_status", status))
	}
	w.ResponseWriter.WriteHeader(http.StatusOK)
}

func (w *grpcWriter) Write(p []byte) (int, error) {
	if w.own {
		return len(p), nil
	}
	w.began = true
	return w.ResponseWriter.Write(p)
}

func (w *grpcWriter) ReadFrom(r io.Reader) (int64, error) {
	if w.own {
		return io.Copy(io.Discard, r)
	}
	w.began = true
	return w.ResponseWriterWrapper.ReadFrom(r)
}

// FlushError sends the header, with status 200 by default.
func (w *grpcWriter) FlushError() error {
	w.began = true
	return http.NewResponseController(w.ResponseWriter).Flush()
}

// end writes the response for an error if no response was written and no error routes
// follow.
func (w *grpcWriter) end(err error) error {
	server, _ := w.request.Context().Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server)
	if err == nil || w.began || server != nil && server.Errors != nil && len(server.Errors.Routes) > 0 {
		return err
	}
	status := http.StatusInternalServerError
	var failed caddyhttp.HandlerError
	if errors.As(err, &failed) && failed.StatusCode >= 400 {
		status = failed.StatusCode
	}
	if OwnResponse(w.request, status); caddyhttp.GetVar(w.request.Context(), ownStatusVar) == nil {
		return err
	}
	if extra, ok := w.request.Context().Value(caddyhttp.ExtraLogFieldsCtxKey).(*caddyhttp.ExtraLogFields); ok {
		extra.Add(zap.NamedError("http_error", err))
	}
	w.WriteHeader(status)
	return nil
}

// grpcStatus returns the gRPC status for an HTTP status. It is more specific than
// gRPC's mapping for clients (http-grpc-status-mapping.md) if the gateway knows the
// cause.
func grpcStatus(status int) int {
	switch status {
	case 499:
		return 1 // CANCELLED
	case http.StatusRequestTimeout, http.StatusGatewayTimeout:
		return 4 // DEADLINE_EXCEEDED
	case http.StatusForbidden:
		return 7 // PERMISSION_DENIED
	case http.StatusTooManyRequests, http.StatusRequestEntityTooLarge, http.StatusRequestURITooLong,
		http.StatusRequestHeaderFieldsTooLarge:
		return 8 // RESOURCE_EXHAUSTED
	case http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusNotImplemented:
		return 12 // UNIMPLEMENTED
	case http.StatusBadRequest, http.StatusInternalServerError:
		return 13 // INTERNAL
	case http.StatusBadGateway, http.StatusServiceUnavailable:
		return 14 // UNAVAILABLE
	case http.StatusUnauthorized:
		return 16 // UNAUTHENTICATED
	}
	return 2 // UNKNOWN
}
