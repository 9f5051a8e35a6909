package entry

import "github.com/caddyserver/caddy/v2/modules/caddyhttp"

// finalWriter drops interim responses to HTTP/1.0 clients, which do not support 1xx (RFC
// 9110, section 15.2).
type finalWriter struct {
	caddyhttp.ResponseWriterWrapper
}

func (w *finalWriter) WriteHeader(status int) {
	if status >= 200 {
		w.ResponseWriter.WriteHeader(status)
	}
}
