package entry

import "github.com/caddyserver/caddy/v2/modules/caddyhttp"

// finalWriter keeps interim responses from clients that do not know them: HTTP/1.0 has
// no 1xx (RFC 9110, section 15.2).
type finalWriter struct {
	caddyhttp.ResponseWriterWrapper
}

func (w *finalWriter) WriteHeader(status int) {
	if status >= 200 {
		w.ResponseWriter.WriteHeader(status)
	}
}
