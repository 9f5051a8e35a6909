// Package trust decides which header fields of a request are believed: fields about identity are set by the gateway
// alone, and fields about the client and its URL by trusted proxies.
package trust

import (
	"io"
	"net/http"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"
	"golang.org/x/net/http/httpguts"

	"github.com/rgate/rgate/internal/entry"
	"github.com/rgate/rgate/internal/logging"
)

// Header fields by which a backend learns who sent a request. What a client sends
// in them is never passed on; see StripIdentity.
const (
	HeaderUserID           = "X-User-Id"
	HeaderConsumerUsername = "X-Consumer-Username"
	HeaderConsumerScopes   = "X-Consumer-Scopes"
	HeaderGatewayService   = "X-Gateway-Service"

	consumerPrefix = "X-Consumer-"
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

	// replacedField is one of those that Caddy's reverse proxy sets itself. What a peer
	// that is not trusted says in it is dropped, too.
	replacedField

	// badField is one that nothing may set: to CGI, it is the proxy that the backend is to
	// send its own requests through (HTTP_PROXY).
	badField
)

const (
	headerRealIP         = "X-Real-Ip"
	headerForwarded      = "Forwarded"
	headerForwardedFor   = "X-Forwarded-For"
	headerForwardedHost  = "X-Forwarded-Host"
	headerForwardedPort  = "X-Forwarded-Port"
	headerForwardedProto = "X-Forwarded-Proto"
)

// RelayFields are names of fields that only proxies set. A name that ends with `*` stands
// for all that begin so.
var RelayFields = strings.Fields(`
	Forwarded* X-Forwarded* X-Real-IP X-Forward-For X-Client-IP X-Cluster-Client-IP X-Remote-IP X-Remote-Addr X-Originating-IP
	Client-IP True-Client-IP Fastly-Client-IP Fly-Client-IP Proxy-Client-IP WL-Proxy-* DO-Connecting-IP CF-Connecting-IP*
	CF-Pseudo-IPv4 CF-Visitor X-Azure-ClientIP X-Azure-SocketIP X-Envoy-External-Address X-Envoy-Internal X-Appengine-User-IP
	X-Vercel-Forwarded-For X-Vercel-Proxied-For X-Original-Host X-Original-URL X-Original-URI X-Original-Method
	X-Original-Forwarded-For X-Rewrite-URL X-Host Disguised-Host Was-Default-Hostname X-Scheme X-Url-Scheme Front-End-Https
	Fastly-SSL X-ARR-SSL X-ARR-ClientCert X-AppService-Proto`)

// fieldClasses has the classes by canonical names. All fields that begin with one of
// relayPrefixes are relay fields. initials are the letters that any of them begins with.
var fieldClasses, relayPrefixes, initials = classify()

func classify() (classes map[string]fieldClass, prefixes []string, initials [256]bool) {
	classes = map[string]fieldClass{
		HeaderUserID: identityField, HeaderGatewayService: identityField, "Proxy": badField,
		headerForwardedFor: replacedField, headerForwardedProto: replacedField, headerForwardedHost: replacedField,
	}
	for _, name := range RelayFields {
		name, isPrefix := strings.CutSuffix(http.CanonicalHeaderKey(name), "*")
		if isPrefix {
			prefixes = append(prefixes, name)
		} else {
			classes[name] = relayField
		}
		initials[name[0]] = true
	}
	for name := range classes {
		initials[name[0]] = true
	}
	return classes, prefixes, initials
}

// classOf returns the class of a field by its canonical name.
func classOf(name string) fieldClass {
	if name == "" || !initials[name[0]] {
		return plainField
	}
	if class, ok := fieldClasses[name]; ok {
		return class
	}
	if strings.HasPrefix(name, consumerPrefix) {
		return identityField
	}
	for _, prefix := range relayPrefixes {
		if strings.HasPrefix(name, prefix) {
			return relayField
		}
	}
	return plainField
}

// IsRelayField reports whether a field is dropped if the peer is not trusted, and is none
// of those that Caddy's reverse proxy sets itself.
func IsRelayField(name string) bool { return classOf(http.CanonicalHeaderKey(name)) == relayField }

// IsReplacedField reports whether a field is dropped if the peer is not trusted, and set by
// Caddy's reverse proxy.
func IsReplacedField(name string) bool {
	return classOf(http.CanonicalHeaderKey(name)) == replacedField
}

// dashes makes the name that a server may take a field for that, like CGI and PHP,
// does not tell underscores and dots from dashes.
var dashes = strings.NewReplacer("_", "-", ".", "-")

// CGIAlias returns the name of the field that CGI and PHP take a field for because of
// its underscores or dots, if that one is about identity, set by proxies, or about
// framing, routing, authentication or content. It is empty for other fields.
func CGIAlias(name string) string {
	if strings.IndexByte(name, '_') < 0 && strings.IndexByte(name, '.') < 0 {
		return ""
	}
	meant := http.CanonicalHeaderKey(dashes.Replace(name))
	if classOf(meant) != plainField || meant == "Cookie" || !httpguts.ValidTrailerHeader(meant) {
		return meant
	}
	return ""
}

// FieldFilter decides which fields of requests reach a backend. The same decision is made
// for fields in the header and for those among the trailers. The zero value drops those
// about identity alone.
type FieldFilter struct {
	// TrustIdentity keeps the fields about identity.
	TrustIdentity bool

	// Relayed drops the fields that only proxies set, unless the peer is trusted.
	Relayed bool

	// Keep lists the canonical names of those of them that are kept anyway.
	Keep []string

	// Logger logs the first drop of each name.
	Logger *zap.Logger

	logged logging.OnceEach[string] // names
}

const (
	strippedVar = "rgate.identity_stripped" // true once fields about identity have been judged
	relayedVar  = "rgate.relayed"           // whether fields of proxies have been dropped
)

// Filter removes from a request what must not reach a backend: the fields above, those
// that look like them to CGI and PHP, and those that the client's Connection field names:
// they are for this server alone, and the proxy would remove what the gateway sets in
// their place. Trailers are judged when they arrive, whether they were announced or not.
//
// Fields about identity are removed once for each request, so that nothing is removed
// that the gateway itself has set.
func (f *FieldFilter) Filter(r *http.Request) {
	first := caddyhttp.GetVar(r.Context(), strippedVar) == nil
	if !first && !f.Relayed {
		return
	}
	if first {
		KeepIdentity(r)
		stripHop(r.Header)
	}
	f.drop(r, first && !f.TrustIdentity)
}

// Prepare implements entry.Preparer: it removes what Clean removes, but for the fields about
// identity, once for each request.
func (f *FieldFilter) Prepare(r *http.Request) {
	if caddyhttp.GetVar(r.Context(), relayedVar) == nil {
		caddyhttp.SetVar(r.Context(), relayedVar, false)
		f.drop(r, false)
	}
}

// drop removes fields from a request, and trailers once they are known.
func (f *FieldFilter) drop(r *http.Request, identity bool) {
	relayed := f.Relayed && !TrustedPeer(r)
	for name := range r.Header {
		switch class := classOf(name); class {
		case badField:
			delete(r.Header, name)
		case identityField:
			if identity {
				delete(r.Header, name)
			}
		case relayField, replacedField:
			if relayed && !slices.Contains(f.Keep, name) {
				f.log(r, name, class)
				delete(r.Header, name)
				caddyhttp.SetVar(r.Context(), relayedVar, true)
			}
		case plainField:
			if CGIAlias(name) != "" {
				delete(r.Header, name)
			}
		}
	}
	if _, guarded := r.Body.(*trailerGuard); r.Trailer != nil && !guarded {
		guard := &trailerGuard{r.Body, r.Trailer, serverOf(r)}
		guard.clean()
		r.Body = guard
	}
}

// MountFilter puts the entry in front of the server that is being provisioned. Nothing in the site
// sees what a peer that is not trusted says in fields of proxies, but for those that a
// gateway keeps, by their canonical names.
func MountFilter(ctx caddy.Context, keep ...string) {
	entry.Mount(ctx)
	running, _ := entry.Prepare(ctx, "relayed", &FieldFilter{Relayed: true, Logger: ctx.Logger()})
	fields := running.(*FieldFilter)
	fields.Keep = append(fields.Keep, keep...)
}

// KeepIdentity makes StripIdentity do nothing for a request, whose sender is
// trusted.
func KeepIdentity(r *http.Request) {
	caddyhttp.SetVar(r.Context(), strippedVar, true)
}

// mostLogged is the number of names that Fields logs. Clients can invent them.
const mostLogged = 64

// log logs that a field is dropped, once for each name.
func (f *FieldFilter) log(r *http.Request, name string, class fieldClass) {
	if f.Logger != nil && f.logged.First(name, mostLogged) {
		remedy := "add the peer to trusted_proxies of the server"
		if class == relayField {
			remedy += ", or the field to keep_fields of the gateway"
		}
		f.Logger.Warn("dropped a field of a peer that is not a trusted proxy",
			zap.String("field", name), zap.String("peer", r.RemoteAddr),
			zap.String("remedy", remedy))
	}
}

// StripIdentity removes what a client says about its own identity: X-User-ID,
// X-Gateway-Service and every X-Consumer-*. See FieldFilter.Filter.
func StripIdentity(r *http.Request) { identityFields.Filter(r) }

var identityFields FieldFilter

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
		if classOf(name) != plainField || !isTrailerName(name) || CGIAlias(name) != "" ||
			strings.ContainsAny(name, "_.") && !ServerExpects(b.server, name) {
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

// ServerExpects reports whether a server lets a field through whose name has underscores or
// dots. Without a server, it does not.
func ServerExpects(server *caddyhttp.Server, name string) bool {
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
