package entry

import "github.com/caddyserver/caddy/v2/modules/caddyhttp"

// finalWriter drops interim (1xx) responses to HTTP/1.0 clients, which do not support
// them (RFC 9110, section 15.2).
type finalWriter struct {
	caddyhttp.ResponseWriterWrapper
}

func (w *finalWriter) WriteHeader(status int) {
	if status >= 200 {
		w.ResponseWriter.WriteHeader(status)
	}
}
