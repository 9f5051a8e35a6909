package entry

import (
	"errors"
	"net/http"
	"strings"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

var (
	errTarget   = errors.New("the request target has a fragment, a space or a control character")
	errNoHost   = errors.New("the request target is an absolute URL without a host") // RFC 9110, section 4.2.1
	errConnect  = errors.New("CONNECT tunnels are not supported")
	errProtocol = errors.New("unsupported protocol of a CONNECT request: must be websocket")
)

// checkTarget rejects invalid request targets.
//
// A target must not contain fragments, spaces or control characters (RFC 9112, section
// 3.2). Other parsers would truncate it there and read another target than the handlers
// checked. net/http accepts `#` and, in HTTP/2 and HTTP/3, spaces. Bytes from 0x80 are
// accepted, because clients send them and parsers do not truncate there.
//
// CONNECT is only accepted for WebSockets (RFC 8441 and 9220). Other protocols would
// reach an HTTP/1.1 backend as unframed bytes. RFC 9220, section 3, recommends 501 for
// them.
func checkTarget(r *http.Request) error {
	for i := range len(r.RequestURI) {
		if c := r.RequestURI[i]; c <= ' ' || c == '#' || c == 0x7f {
			return caddyhttp.Error(http.StatusBadRequest, errTarget)
		}
	}
	if r.Method == http.MethodConnect {
		return checkConnect(r)
	}
	if r.URL.Scheme != "" && r.URL.Host == "" && !strings.HasPrefix(r.RequestURI, "/") {
		return caddyhttp.Error(http.StatusBadRequest, errNoHost)
	}
	if r.URL.Path == "" && r.URL.Opaque == "" {
		r.URL.Path = "/" // RFC 9110, section 4.2.3
	}
	return nil
}

func checkConnect(r *http.Request) error {
	switch protocol, extended := connectProtocol(r); {
	case !extended:
		return caddyhttp.Error(http.StatusMethodNotAllowed, errConnect)
	case !strings.EqualFold(protocol, "websocket"):
		return caddyhttp.Error(http.StatusNotImplemented, errProtocol)
	case r.ProtoMajor == 2:
		r.Header[":protocol"] = []string{"websocket"} // in lower case, as proxies compare it
	default:
		r.Proto = "websocket"
	}
	return nil
}

// connectProtocol returns the protocol of an extended CONNECT. net/http stores it as a
// header field with a name that clients cannot send, quic-go in place of the version.
func connectProtocol(r *http.Request) (protocol string, extended bool) {
	switch {
	case r.ProtoMajor == 2 && len(r.Header[":protocol"]) > 0:
		return r.Header[":protocol"][0], true
	case r.ProtoMajor == 3 && r.Proto != "HTTP/3.0":
		return r.Proto, true
	}
	return "", false
}
