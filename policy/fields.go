package policy

import (
	"io"
	"net/http"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"
	"golang.org/x/net/http/httpguts"
)

// fieldClass says who may set a field of a request.
type fieldClass uint8

const (
	// plainField is the client's own.
	plainField fieldClass = iota

	// identityField tells a backend who sent the request. Only the gateway sets it.
	identityField

	// relayField tells where a request comes from or what the client asked for. Only
	// proxies set it; Fields drops it if the peer is not trusted.
	relayField

	// replacedField is one of those that Caddy's reverse proxy replaces if the peer is
	// not trusted.
	replacedField
)

const (
	headerRealIP         = "X-Real-Ip"
	headerForwarded      = "Forwarded"
	headerForwardedHost  = "X-Forwarded-Host"
	headerForwardedPort  = "X-Forwarded-Port"
	headerForwardedProto = "X-Forwarded-Proto"
)

// classOf returns the class of a field by its canonical name.
func classOf(name string) fieldClass {
	switch name {
	case HeaderUserID, HeaderGatewayService:
		return identityField
	case "X-Forwarded-For", headerForwardedProto, headerForwardedHost:
		return replacedField
	case headerForwarded, headerRealIP, headerForwardedPort,
		"X-Forwarded-Prefix", "X-Forwarded-Server", "X-Forwarded-Ssl", "X-Forwarded-Scheme", "X-Forwarded-Uri", "X-Forwarded-Method",
		"X-Forwarded-User", "X-Forwarded-Email", "X-Forwarded-Groups", "X-Forwarded-Client-Cert",
		"X-Client-Ip", "X-Cluster-Client-Ip", "True-Client-Ip", "Fastly-Client-Ip",
		"X-Original-Host", "X-Original-Url", "X-Original-Forwarded-For", "X-Host", "Front-End-Https", "X-Url-Scheme":
		return relayField
	}
	switch {
	case strings.HasPrefix(name, consumerPrefix):
		return identityField
	case strings.HasPrefix(name, "X-Forwarded-Tls-Client-Cert"), strings.HasPrefix(name, "Cf-Connecting-Ip"):
		return relayField
	}
	return plainField
}

// RelayFields are names of fields that are dropped if the peer is not trusted, for
// messages: those that begin as X-Forwarded-Tls-Client-Cert and CF-Connecting-IP do are
// dropped, too.
var RelayFields = []string{
	"Forwarded", "X-Forwarded-Prefix", "X-Real-IP", "X-Forwarded-Port", "X-Forwarded-Server", "X-Forwarded-Ssl", "X-Forwarded-Scheme",
	"X-Forwarded-Uri", "X-Forwarded-Method", "X-Forwarded-User", "X-Forwarded-Email", "X-Forwarded-Groups", "X-Forwarded-Client-Cert",
	"X-Forwarded-Tls-Client-Cert", "X-Client-IP", "X-Cluster-Client-IP", "True-Client-IP", "Fastly-Client-IP", "CF-Connecting-IP",
	"X-Original-Host", "X-Original-URL", "X-Original-Forwarded-For", "X-Host", "Front-End-Https", "X-Url-Scheme",
}

// IsRelayField reports whether a field is dropped if the peer is not trusted.
func IsRelayField(name string) bool { return classOf(http.CanonicalHeaderKey(name)) == relayField }

// IsReplacedField reports whether Caddy's reverse proxy replaces a field if the peer is
// not trusted.
func IsReplacedField(name string) bool {
	return classOf(http.CanonicalHeaderKey(name)) == replacedField
}

// dashes makes the name that a server may take a field for that, like CGI and PHP,
// does not tell underscores and dots from dashes.
var dashes = strings.NewReplacer("_", "-", ".", "-")

// LooksLike returns the name of the field that CGI and PHP take a field for because of
// its underscores or dots, if that one is about identity, set by proxies, or about
// framing, routing, authentication or content. It is empty for other fields.
func LooksLike(name string) string {
	if strings.IndexByte(name, '_') < 0 && strings.IndexByte(name, '.') < 0 {
		return ""
	}
	meant := http.CanonicalHeaderKey(dashes.Replace(name))
	if classOf(meant) != plainField || meant == "Cookie" || !httpguts.ValidTrailerHeader(meant) {
		return meant
	}
	return ""
}

// Fields decides which fields of requests reach a backend. The same decision is made
// for fields in the header and for those among the trailers. The zero value drops those
// about identity alone.
type Fields struct {
	// TrustIdentity keeps the fields about identity.
	TrustIdentity bool

	// Relayed drops the fields that only proxies set, unless the peer is trusted.
	Relayed bool

	// Keep lists the canonical names of those of them that are kept anyway.
	Keep []string

	// Logger logs the first drop of each name.
	Logger *zap.Logger

	logged OnceEach[string] // names
}

const strippedVar = "rgate.identity_stripped"

// Clean removes from a request what must not reach a backend: the fields above, those
// that look like them to CGI and PHP, and those that the client's Connection field names:
// they are for this server alone, and the proxy would remove what the gateway sets in
// their place. Trailers are judged when they arrive, whether they were announced or not.
//
// Fields about identity are removed once for each request, so that nothing is removed
// that the gateway itself has set.
func (f *Fields) Clean(r *http.Request) {
	first := caddyhttp.GetVar(r.Context(), strippedVar) == nil
	if !first && !f.Relayed {
		return
	}
	if first {
		KeepIdentity(r)
		stripHop(r.Header)
	}
	relayed := f.Relayed && !TrustedPeer(r)
	for name := range r.Header {
		switch classOf(name) {
		case identityField:
			if first && !f.TrustIdentity {
				delete(r.Header, name)
			}
		case relayField:
			if relayed && !slices.Contains(f.Keep, name) {
				f.log(r, name)
				delete(r.Header, name)
				caddyhttp.SetVar(r.Context(), relayedVar, true)
			}
		case plainField:
			if LooksLike(name) != "" {
				delete(r.Header, name)
			}
		}
	}
	if first && r.Trailer != nil {
		guard := &trailerGuard{r.Body, r.Trailer, serverOf(r)}
		guard.clean()
		r.Body = guard
	}
}

// mostLogged is the number of names that Fields logs. Clients can invent them.
const mostLogged = 64

// log logs that a field is dropped, once for each name.
func (f *Fields) log(r *http.Request, name string) {
	if f.Logger != nil && f.logged.First(name, mostLogged) {
		f.Logger.Warn("dropped a field of a peer that is not a trusted proxy",
			zap.String("field", name), zap.String("peer", r.RemoteAddr),
			zap.String("remedy", "add the peer to trusted_proxies of the server, or the field to keep_fields of the gateway"))
	}
}

// StripIdentity removes what a client says about its own identity: X-User-ID,
// X-Gateway-Service and every X-Consumer-*. See Fields.Clean.
func StripIdentity(r *http.Request) { identityFields.Clean(r) }

var identityFields Fields

// stripHop removes the fields that are for this server alone (RFC 9110, section 7.6.1),
// but for those that the server or its proxy deals with.
func stripHop(header http.Header) {
	lines := header["Connection"]
	if len(lines) == 0 || len(lines) == 1 && (lines[0] == "keep-alive" || lines[0] == "close") {
		return
	}
	var kept []string
	for _, line := range lines {
		for name := range strings.SplitSeq(line, ",") {
			switch name = http.CanonicalHeaderKey(strings.TrimSpace(name)); name {
			case "":
			case "Keep-Alive", "Close", "Upgrade", "Te", "Http2-Settings":
				kept = append(kept, name)
			default:
				delete(header, name)
			}
		}
	}
	if kept == nil {
		delete(header, "Connection")
		return
	}
	header["Connection"] = []string{strings.Join(kept, ", ")}
}

// trailerGuard is a body whose trailers are among those of the request once it has been
// read, whether they were announced or not.
type trailerGuard struct {
	io.ReadCloser
	trailers http.Header
	server   *caddyhttp.Server
}

// Read removes the trailers that must not reach a backend as soon as they are known.
func (b *trailerGuard) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err == io.EOF {
		b.clean()
	}
	return n, err
}

// clean applies to trailers what the server and Fields apply to the header. A trailer is
// never one of those that the gateway or a trusted proxy sets.
func (b *trailerGuard) clean() {
	for name := range b.trailers {
		if classOf(name) != plainField || !isTrailerName(name) || LooksLike(name) != "" ||
			strings.ContainsAny(name, "_.") && !Expects(b.server, name) {
			delete(b.trailers, name)
		}
	}
}

// isTrailerName reports whether a field may be a trailer (RFC 9110, section 6.5.1): it is
// not about framing, routing, authentication, content, or how to handle a response.
func isTrailerName(name string) bool {
	switch name {
	case "Cookie", "Set-Cookie", "Upgrade", "Http2-Settings", "Alt-Svc", "Location", "Age", "Date", "Expires", "Retry-After", "Vary",
		"X-Api-Key", "X-Request-Id", "X-Http-Method-Override":
		return false
	}
	return httpguts.ValidTrailerHeader(name)
}

// CleanTrailers removes from a response's trailers, in a map of their own, those that
// must not be any.
func CleanTrailers(trailers http.Header) {
	for name := range trailers {
		if !isTrailerName(name) {
			delete(trailers, name)
		}
	}
}

// CleanLateTrailers removes from the header of a response those trailers that were not
// announced and must not be any. net/http sends what stands under http.TrailerPrefix
// whatever its name is.
func CleanLateTrailers(header http.Header) {
	for key := range header {
		if name, ok := strings.CutPrefix(key, http.TrailerPrefix); ok && !isTrailerName(http.CanonicalHeaderKey(name)) {
			delete(header, key)
		}
	}
}

// Expects reports whether a server lets a field through whose name has underscores or
// dots. Without a server, it does not.
func Expects(server *caddyhttp.Server, name string) bool {
	if server == nil {
		return false
	}
	underscores, dots := strings.Contains(name, "_"), strings.Contains(name, ".")
	named := func(entry string) bool {
		if prefix, ok := strings.CutSuffix(entry, "*"); ok {
			return underscores != dots && len(name) >= len(prefix) && strings.EqualFold(name[:len(prefix)], prefix)
		}
		return strings.EqualFold(entry, name)
	}
	return underscores && slices.ContainsFunc(server.ExpectedUnderscoreHeaders, named) ||
		dots && slices.ContainsFunc(server.ExpectedDotHeaders, named)
}

// serverOf returns the server that has received a request, nil in tests.
func serverOf(r *http.Request) *caddyhttp.Server {
	server, _ := r.Context().Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server)
	return server
}
