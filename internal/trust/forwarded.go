package trust

import (
	"encoding/binary"
	"mime"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// TrustedPeer reports whether the peer of a request is in the server's trusted_proxies.
// Its relay fields are trusted.
func TrustedPeer(r *http.Request) bool {
	trusted, _ := caddyhttp.GetVar(r.Context(), caddyhttp.TrustedProxyVarKey).(bool)
	return trusted
}

// ClientAddress returns the client's IP address, determined by the server's trusted
// proxies. It is empty if the address is unknown.
func ClientAddress(r *http.Request) string {
	address, _ := caddyhttp.GetVar(r.Context(), caddyhttp.ClientIPVarKey).(string)
	// The address may have a port: it then contains a single colon, or an IPv6 address
	// in brackets.
	if colon := strings.IndexByte(address, ':'); colon > 0 && (address[0] == '[' || colon == strings.LastIndexByte(address, ':')) {
		if host, _, err := net.SplitHostPort(address); err == nil {
			return host
		}
	}
	return address
}

// Forwarded describes the URL that the client requested. The source is a trusted peer,
// or else the request itself.
type Forwarded struct {
	Scheme string // http or https
	Host   string // including the port, if the client sent one
	Port   string // port of the host, or default port of the scheme
}

// ForwardedOf returns the scheme, host and port that the client requested.
func ForwardedOf(r *http.Request) Forwarded {
	f := Forwarded{Scheme: SchemeOf(r), Host: r.Host}
	trusted := TrustedPeer(r)
	if said := r.Header[headerForwardedHost]; trusted && len(said) > 0 && said[len(said)-1] != "" {
		f.Host = said[len(said)-1]
	}
	if said := r.Header[headerForwardedPort]; trusted && len(said) > 0 && said[len(said)-1] != "" {
		f.Port = said[len(said)-1]
	} else if _, port := splitPort(f.Host); isPort(port) {
		f.Port = port
	} else if f.Scheme == "https" {
		f.Port = "443"
	} else {
		f.Port = "80"
	}
	return f
}

// SchemeOf returns the scheme that the client requested: see ForwardedOf.
func SchemeOf(r *http.Request) string {
	if said := r.Header[headerForwardedProto]; len(said) > 0 && TrustedPeer(r) {
		switch last := said[len(said)-1]; {
		case strings.EqualFold(last, "https"):
			return "https"
		case strings.EqualFold(last, "http"):
			return "http"
		}
	}
	if r.TLS != nil {
		return "https"
	}
	return "http"
}

// splitPort splits the port from a host without brackets. Unlike net.SplitHostPort, it
// allocates no error.
func splitPort(host string) (name, port string) {
	if colon := strings.LastIndexByte(host, ':'); colon >= 0 && (colon == strings.IndexByte(host, ':') || host[colon-1] == ']') {
		host, port = host[:colon], host[colon+1:]
	}
	return strings.TrimSuffix(strings.TrimPrefix(host, "["), "]"), port
}

func isPort(text string) bool {
	if text == "" {
		return false // avoids the allocation of an error
	}
	port, err := strconv.ParseUint(text, 10, 16)
	return err == nil && port > 0
}

// ProxyFields holds the values of the fields that Set sets, to avoid allocations.
type ProxyFields [2]string

// Set sets X-Real-IP to the client's address and X-Forwarded-Port to the requested
// port. Existing values that FieldFilter.Filter has kept remain, unless a trusted peer
// identifies the client in other fields.
func (own *ProxyFields) Set(r *http.Request) {
	address := ClientAddress(r)
	if _, said := r.Header[headerRealIP]; address != "" && (!said || TrustedPeer(r) && !isPeer(r, address)) {
		own[0] = address
		r.Header[headerRealIP] = own[0:1:1]
	}
	if _, said := r.Header[headerForwardedPort]; !said {
		own[1] = ForwardedOf(r).Port
		r.Header[headerForwardedPort] = own[1:2:2]
	}
}

// isPeer reports whether an address is the address of the request's peer.
func isPeer(r *http.Request, address string) bool {
	peer, _, err := net.SplitHostPort(r.RemoteAddr)
	return err == nil && peer == address
}

// isRelayed reports whether a request came through an untrusted proxy. The client is
// then unknown, because the peer's address is the proxy's.
func isRelayed(r *http.Request) bool {
	if TrustedPeer(r) {
		return false
	}
	if dropped, _ := caddyhttp.GetVar(r.Context(), relayedVar).(bool); dropped {
		return true
	}
	for name := range r.Header {
		if class := classOf(name); class == relayField || class == replacedField || name == "Via" {
			return true
		}
	}
	return false
}

// siteFields lists the fields from which backends derive their own URL. Responses may
// depend on them.
var siteFields = []string{
	headerForwardedPort, "X-Forwarded-Prefix", "X-Forwarded-Ssl", "X-Forwarded-Scheme", "X-Forwarded-Uri", "X-Forwarded-Method",
	"X-Original-Host", "X-Original-Url", "X-Host", "Front-End-Https", "X-Url-Scheme",
}

// HasForwarded reports whether a request has proxy fields about the requested URL, besides
// X-Forwarded-Host and X-Forwarded-Port, which the gateway sets.
func HasForwarded(r *http.Request) bool {
	for _, name := range siteFields {
		if name != headerForwardedPort && r.Header[name] != nil {
			return true
		}
	}
	return r.Header[headerForwarded] != nil
}

// AppendForwarded appends the proxy fields about the requested URL to a key.
// FieldFilter.Filter has removed those of untrusted peers.
func AppendForwarded(key []byte, r *http.Request) []byte {
	add := func(values ...string) {
		key = binary.AppendUvarint(key, uint64(len(values)))
		for _, value := range values {
			key = append(binary.AppendUvarint(key, uint64(len(value))), value...)
		}
	}
	if host := r.Header[headerForwardedHost]; len(host) > 0 && TrustedPeer(r) {
		add(strings.ToLower(host[len(host)-1]))
	} else {
		add()
	}
	add(forwardedSite(r.Header[headerForwarded])...)
	for _, name := range siteFields {
		add(r.Header[name]...)
	}
	return key
}

// forwardedSite returns the hosts and schemes in a Forwarded field (RFC 7239). It
// returns invalid lines unchanged.
func forwardedSite(lines []string) (site []string) {
	for _, line := range lines {
		for element := range strings.SplitSeq(line, ",") {
			_, pairs, err := mime.ParseMediaType("forwarded;" + element)
			if err != nil {
				return slices.Clone(lines)
			}
			if host, proto := pairs["host"], pairs["proto"]; host != "" || proto != "" {
				site = append(site, strings.ToLower(proto+"://"+host))
			}
		}
	}
	return site
}
