// Package trust decides which header fields of requests are trusted. Only the gateway sets
// fields about identity; only trusted proxies set fields about the client and its request.
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

// Header fields with the identity of the user for backends. Values of clients are removed:
// see StripIdentity.
const (
	HeaderUserID           = "X-User-Id"
	HeaderConsumerUsername = "X-Consumer-Username"
	HeaderConsumerScopes   = "X-Consumer-Scopes"
	HeaderGatewayService   = "X-Gateway-Service"

	consumerPrefix = "X-Consumer-"
)

// fieldClass is who may set a field of a request.
type fieldClass uint8

const (
	// plainField is set by clients.
	plainField fieldClass = iota

	// identityField identifies the user of the request. Only the gateway sets it.
	identityField

	// relayField is about the client or its original request. Only proxies set it;
	// FieldFilter drops it if the peer is not trusted.
	relayField

	// replacedField is a relay field that Caddy's reverse proxy sets itself.
	replacedField

	// badField is never set: for CGI, it is the proxy for the backend's own requests
	// (HTTP_PROXY).
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

// RelayFields are the names of fields that only proxies set. `*` at the end stands for any
// text.
var RelayFields = strings.Fields(`
	Forwarded* X-Forwarded* X-Real-IP X-Forward-For X-Client-IP X-Cluster-Client-IP X-Remote-IP X-Remote-Addr X-Originating-IP
	Client-IP True-Client-IP Fastly-Client-IP Fly-Client-IP Proxy-Client-IP WL-Proxy-* DO-Connecting-IP CF-Connecting-IP*
	CF-Pseudo-IPv4 CF-Visitor X-Azure-ClientIP X-Azure-SocketIP X-Envoy-External-Address X-Envoy-Internal X-Appengine-User-IP
	X-Vercel-Forwarded-For X-Vercel-Proxied-For X-Original-Host X-Original-URL X-Original-URI X-Original-Method
	X-Original-Forwarded-For X-Rewrite-URL X-Host Disguised-Host Was-Default-Hostname X-Scheme X-Url-Scheme Front-End-Https
	Fastly-SSL X-ARR-SSL X-ARR-ClientCert X-AppService-Proto`)

// fieldClasses has the classes by canonical names. Fields that begin with one of
// relayPrefixes are relay fields. initials has the first letters of all these names.
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

// IsRelayField reports whether a field is dropped if the peer is not trusted, and not set by
// Caddy's reverse proxy.
func IsRelayField(name string) bool { return classOf(http.CanonicalHeaderKey(name)) == relayField }

// IsReplacedField reports whether a field is dropped if the peer is not trusted, and set by
// Caddy's reverse proxy.
func IsReplacedField(name string) bool {
	return classOf(http.CanonicalHeaderKey(name)) == replacedField
}

// dashes replaces underscores and dots, which CGI and PHP confuse with dashes.
var dashes = strings.NewReplacer("_", "-", ".", "-")

// CGIAlias returns the name that CGI and PHP read instead of a name with underscores or
// dots, if that name is about identity, set by proxies, or about framing, routing,
// authentication or content. It is empty for other fields.
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

// FieldFilter removes fields that must not reach a backend from the header and the trailers
// of requests. The zero value removes the fields about identity.
type FieldFilter struct {
	// TrustIdentity keeps the fields about identity.
	TrustIdentity bool

	// Relayed removes the fields that only proxies set, unless the peer is trusted.
	Relayed bool

	// Keep lists the canonical names of relay fields that are kept.
	Keep []string

	// Logger logs the first drop of each name.
	Logger *zap.Logger

	logged logging.OnceEach[string] // names
}

const (
	strippedVar = "rgate.identity_stripped" // true after fields about identity were filtered
	relayedVar  = "rgate.relayed"           // whether relay fields were dropped
)

// Filter removes from a request the fields above, those that CGI and PHP read as one of
// them, and those that the Connection field names: the proxy would remove them later, with
// the values of the gateway. Trailers are filtered when they arrive.
//
// Fields about identity are removed once per request, so that later calls keep the values of
// the gateway.
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

// Prepare implements entry.Preparer. Once per request, it removes what Filter removes except
// the fields about identity.
func (f *FieldFilter) Prepare(r *http.Request) {
	if caddyhttp.GetVar(r.Context(), relayedVar) == nil {
		caddyhttp.SetVar(r.Context(), relayedVar, false)
		f.drop(r, false)
	}
}

// drop removes fields from a request, and trailers when they arrive.
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

// MountFilter mounts the entry of the server that is being provisioned. It removes relay
// fields of peers that are not trusted before any handler of the site, except those to keep,
// by their canonical names.
func MountFilter(ctx caddy.Context, keep ...string) {
	entry.Mount(ctx)
	running, _ := entry.Prepare(ctx, "relayed", &FieldFilter{Relayed: true, Logger: ctx.Logger()})
	fields := running.(*FieldFilter)
	fields.Keep = append(fields.Keep, keep...)
}

// KeepIdentity makes StripIdentity keep the fields of a request from a trusted client.
func KeepIdentity(r *http.Request) {
	caddyhttp.SetVar(r.Context(), strippedVar, true)
}

// mostLogged is the number of names that Fields logs. Clients can invent them.
const mostLogged = 64

// log logs the first drop of a field.
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

// StripIdentity removes the client's fields about identity: X-User-ID, X-Gateway-Service and
// X-Consumer-*. See FieldFilter.Filter.
func StripIdentity(r *http.Request) { identityFields.Filter(r) }

var identityFields FieldFilter

// stripHop removes hop-by-hop fields (RFC 9110, section 7.6.1) except those that the server
// or its proxy handles.
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

// trailerGuard is a body of which the request has the trailers when it was read, announced
// or not.
type trailerGuard struct {
	io.ReadCloser
	trailers http.Header
	server   *caddyhttp.Server
}

// Read filters the trailers when they arrive.
func (b *trailerGuard) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err == io.EOF {
		b.clean()
	}
	return n, err
}

// clean filters the trailers as the server and FieldFilter filter the header. Fields that the
// gateway or a trusted proxy sets cannot be trailers.
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

// CleanTrailers removes fields that cannot be trailers from the trailers of a response.
func CleanTrailers(trailers http.Header) {
	for name := range trailers {
		if !isTrailerName(name) {
			delete(trailers, name)
		}
	}
}

// CleanLateTrailers removes unannounced trailers that cannot be trailers from the header of a
// response. net/http sends all fields with http.TrailerPrefix.
func CleanLateTrailers(header http.Header) {
	for key := range header {
		if name, ok := strings.CutPrefix(key, http.TrailerPrefix); ok && !isTrailerName(http.CanonicalHeaderKey(name)) {
			delete(header, key)
		}
	}
}

// ServerExpects reports whether a server accepts a field whose name has underscores or dots.
// A nil server accepts none.
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
