package entry

import (
	"fmt"
	"net/http"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"golang.org/x/net/http/httpguts"
)

// checkMethod rejects a method that is not a token (RFC 9110, section 9.1). HTTP/2 and
// HTTP/3 accept such methods, but they cannot be sent to a backend. Field names use the
// same syntax.
func checkMethod(r *http.Request) error {
	if r.ProtoMajor > 1 && !httpguts.ValidHeaderFieldName(r.Method) {
		return caddyhttp.Error(http.StatusBadRequest, fmt.Errorf("invalid method %q", r.Method))
	}
	return nil
}
