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

// TrustedPeer reports whether the peer that sent a request is one of the server's
// trusted_proxies, so that it is believed who the client is and what it asked for.
func TrustedPeer(r *http.Request) bool {
	trusted, _ := caddyhttp.GetVar(r.Context(), caddyhttp.TrustedProxyVarKey).(bool)
	return trusted
}

// ClientAddress is the client's IP address, as the server's trusted proxies tell
// it. It is empty if it is not known.
func ClientAddress(r *http.Request) string {
	address, _ := caddyhttp.GetVar(r.Context(), caddyhttp.ClientIPVarKey).(string)
	// It may have a port: one colon, or brackets around those of an IPv6 address.
	if colon := strings.IndexByte(address, ':'); colon > 0 && (address[0] == '[' || colon == strings.LastIndexByte(address, ':')) {
		if host, _, err := net.SplitHostPort(address); err == nil {
			return host
		}
	}
	return address
}

// Forwarded is what the client asked for, as a trusted peer says it; without one, as the
// request itself does.
type Forwarded struct {
	Scheme string // http or https
	Host   string // with the port, if the client gave one
	Port   string // of the host, or that of the scheme
}

// ForwardedOf returns what the client asked for.
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

// SchemeOf returns the scheme of ForwardedOf.
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

// splitPort splits the port from a host, without the allocation of the error of
// net.SplitHostPort. The host has no brackets then.
func splitPort(host string) (name, port string) {
	if colon := strings.LastIndexByte(host, ':'); colon >= 0 && (colon == strings.IndexByte(host, ':') || host[colon-1] == ']') {
		host, port = host[:colon], host[colon+1:]
	}
	return strings.TrimSuffix(strings.TrimPrefix(host, "["), "]"), port
}

func isPort(text string) bool {
	if text == "" {
		return false // without the allocation of an error
	}
	port, err := strconv.ParseUint(text, 10, 16)
	return err == nil && port > 0
}

// ProxyFields has room for the values of the fields that Set sets.
type ProxyFields [2]string

// Set tells the backend the address of the client in X-Real-IP and the port that it
// asked for in X-Forwarded-Port. What FieldFilter.Filter has left in them stays, unless a
// trusted peer says in other fields who the client is.
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

// isPeer reports whether an address is that of the peer that sent a request.
func isPeer(r *http.Request, address string) bool {
	peer, _, err := net.SplitHostPort(r.RemoteAddr)
	return err == nil && peer == address
}

// IsRelayed reports whether a request has come through a proxy that is not trusted, so
// that its client is not known: the address of the peer is that of the proxy.
func IsRelayed(r *http.Request) bool {
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

// siteFields are those from which backends make their own address, so that a response
// may depend on them.
var siteFields = []string{
	headerForwardedPort, "X-Forwarded-Prefix", "X-Forwarded-Ssl", "X-Forwarded-Scheme", "X-Forwarded-Uri", "X-Forwarded-Method",
	"X-Original-Host", "X-Original-Url", "X-Host", "Front-End-Https", "X-Url-Scheme",
}

// AppendForwarded appends to a key what fields of proxies say about the address that the
// client asked for. That the peer is not trusted does not matter: FieldFilter.Filter has
// removed what the backend will not see.
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

// forwardedSite returns what a field Forwarded (RFC 7239) says of the host and the scheme.
// What cannot be read counts as it stands.
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
