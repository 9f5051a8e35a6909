// Package trust determines which request header fields are trusted. Only the gateway
// sets identity fields. Only trusted proxies set fields about the client and its
// original request.
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

// The header fields with the identity of the user, for backends. Values from clients
// are removed: see StripIdentity.
const (
	HeaderUserID           = "X-User-Id"
	HeaderConsumerUsername = "X-Consumer-Username"
	HeaderConsumerScopes   = "X-Consumer-Scopes"
	HeaderGatewayService   = "X-Gateway-Service"

	// ConsumerPrefix begins the names of all fields about the consumer.
	ConsumerPrefix = "X-Consumer-"
)

// fieldClass is the class of a request field, by the party that may set it.
type fieldClass uint8

const (
	// plainField is a field that clients may set.
	plainField fieldClass = iota

	// identityField identifies the user. Only the gateway sets it.
	identityField

	// relayField describes the client or its original request. Only proxies set it.
	// FieldFilter drops it if the peer is not trusted.
	relayField

	// replacedField is a relay field that Caddy's reverse proxy sets.
	replacedField

	// badField is always dropped: CGI would use it as the proxy of the backend's own
	// requests (HTTP_PROXY).
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

// RelayFields lists the fields that only proxies set. A `*` at the end matches any
// suffix.
var RelayFields = strings.Fields(`
	Forwarded* X-Forwarded* X-Real-IP X-Forward-For X-Client-IP X-Cluster-Client-IP X-Remote-IP X-Remote-Addr X-Originating-IP
	Client-IP True-Client-IP Fastly-Client-IP Fly-Client-IP Proxy-Client-IP WL-Proxy-* DO-Connecting-IP CF-Connecting-IP*
	CF-Pseudo-IPv4 CF-Visitor X-Azure-ClientIP X-Azure-SocketIP X-Envoy-External-Address X-Envoy-Internal X-Appengine-User-IP
	X-Vercel-Forwarded-For X-Vercel-Proxied-For X-Original-Host X-Original-URL X-Original-URI X-Original-Method
	X-Original-Forwarded-For X-Rewrite-URL X-Host Disguised-Host Was-Default-Hostname X-Scheme X-Url-Scheme Front-End-Https
	Fastly-SSL X-ARR-SSL X-ARR-ClientCert X-AppService-Proto`)

// fieldClasses maps canonical names to classes. Fields with a prefix in relayPrefixes
// are relay fields. initials contains the first letters of all these names.
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

// classOf returns the class of a field, given its canonical name.
func classOf(name string) fieldClass {
	if name == "" || !initials[name[0]] {
		return plainField
	}
	if class, ok := fieldClasses[name]; ok {
		return class
	}
	if strings.HasPrefix(name, ConsumerPrefix) {
		return identityField
	}
	for _, prefix := range relayPrefixes {
		if strings.HasPrefix(name, prefix) {
			return relayField
		}
	}
	return plainField
}

// IsRelayField reports whether a field is dropped if the peer is not trusted, and is
// not set by Caddy's reverse proxy.
func IsRelayField(name string) bool { return classOf(http.CanonicalHeaderKey(name)) == relayField }

// IsReplacedField reports whether a field is dropped if the peer is not trusted, and is
// set by Caddy's reverse proxy.
func IsReplacedField(name string) bool {
	return classOf(http.CanonicalHeaderKey(name)) == replacedField
}

// dashes replaces underscores and dots with dashes, like CGI and PHP.
var dashes = strings.NewReplacer("_", "-", ".", "-")

// CGIAlias returns the name that CGI and PHP derive from a name with underscores or
// dots. It is empty unless the derived name is about identity, proxies, framing,
// routing, authentication or content.
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

// FieldFilter removes fields that must not reach a backend from the header and trailers
// of requests. The zero value keeps the relay fields.
type FieldFilter struct {
	// TrustIdentity keeps the identity fields.
	TrustIdentity bool

	// Relayed removes the fields that only proxies set, unless the peer is trusted.
	Relayed bool

	// Keep lists the canonical names of relay fields to keep.
	Keep []string

	// Logger logs the first removal of each field name.
	Logger *zap.Logger

	logged logging.OnceEach[string] // field names
}

const (
	strippedVar = "rgate.identity_stripped" // set if the identity fields have been filtered
	relayedVar  = "rgate.relayed"           // set if relay fields have been removed
)

// Filter removes identity and relay fields from a request as configured, and fields that
// CGI and PHP confuse with them. It also removes the fields that Connection lists,
// because the proxy would remove them later together with the gateway's values. Trailers
// are filtered when they arrive.
//
// Identity fields are removed once per request, so that later calls keep the gateway's
// values.
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

// Prepare implements entry.Preparer. Once per request, it removes the fields that
// Filter removes, except the identity fields and those that Connection lists.
func (f *FieldFilter) Prepare(r *http.Request) {
	if caddyhttp.GetVar(r.Context(), relayedVar) == nil {
		caddyhttp.SetVar(r.Context(), relayedVar, false)
		f.drop(r, false)
	}
}

// drop removes fields from a request, and from its trailers when they arrive.
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

// MountFilter mounts the entry of the server that is being provisioned. Before all
// handlers of the site, the entry removes relay fields of untrusted peers, except the
// canonical names in keep.
func MountFilter(ctx caddy.Context, keep ...string) {
	entry.Mount(ctx)
	running, _ := entry.Prepare(ctx, "relayed", &FieldFilter{Relayed: true, Logger: ctx.Logger()})
	fields := running.(*FieldFilter)
	fields.Keep = append(fields.Keep, keep...)
}

// KeepIdentity makes StripIdentity keep the identity fields of a request from a trusted
// client.
func KeepIdentity(r *http.Request) {
	caddyhttp.SetVar(r.Context(), strippedVar, true)
}

// mostLogged is the maximum number of field names to log, because clients choose them.
const mostLogged = 64

// log logs the first removal of a field.
func (f *FieldFilter) log(r *http.Request, name string, class fieldClass) {
	if f.Logger != nil && f.logged.First(name, mostLogged) {
		remedy := "add the peer to trusted_proxies of the server"
		if class == relayField {
			remedy += ", or the field to keep_fields of the gateway"
		}
		f.Logger.Warn("dropped a request field sent by an untrusted peer",
			zap.String("field", name), zap.String("peer", r.RemoteAddr),
			zap.String("remedy", remedy))
	}
}

// StripIdentity removes the identity fields that the client sent: X-User-ID,
// X-Gateway-Service and X-Consumer-*. See FieldFilter.Filter.
func StripIdentity(r *http.Request) { identityFields.Filter(r) }

var identityFields FieldFilter

// stripHop removes hop-by-hop fields (RFC 9110, section 7.6.1), except those that the
// server or the proxy handles.
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

// trailerGuard is a request body that filters the request's trailers at its end.
// Trailers need not be announced.
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

// clean filters the trailers in the same way as the server and FieldFilter filter the
// header. It also removes fields that the gateway or a trusted proxy sets.
func (b *trailerGuard) clean() {
	for name := range b.trailers {
		if classOf(name) != plainField || !isTrailerName(name) || CGIAlias(name) != "" ||
			strings.ContainsAny(name, "_.") && !serverExpects(b.server, name) {
			delete(b.trailers, name)
		}
	}
}

// isTrailerName reports whether a field may be a trailer (RFC 9110, section 6.5.1).
// Fields about framing, routing, authentication, content or response handling may not.
func isTrailerName(name string) bool {
	switch name {
	case "Cookie", "Set-Cookie", "Upgrade", "Http2-Settings", "Alt-Svc", "Location", "Age", "Date", "Expires", "Retry-After", "Vary",
		"X-Api-Key", "X-Request-Id", "X-Http-Method-Override":
		return false
	}
	return httpguts.ValidTrailerHeader(name)
}

// CleanTrailers removes fields that may not be trailers from the trailers of a
// response.
func CleanTrailers(trailers http.Header) {
	for name := range trailers {
		if !isTrailerName(name) {
			delete(trailers, name)
		}
	}
}

// CleanLateTrailers removes unannounced trailers that may not be trailers from a
// response header. net/http sends all fields with http.TrailerPrefix.
func CleanLateTrailers(header http.Header) {
	for key := range header {
		if name, ok := strings.CutPrefix(key, http.TrailerPrefix); ok && !isTrailerName(http.CanonicalHeaderKey(name)) {
			delete(header, key)
		}
	}
}

// serverExpects reports whether a server accepts a field whose name contains
// underscores or dots. A nil server accepts none.
func serverExpects(server *caddyhttp.Server, name string) bool {
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

// serverOf returns the server that received a request, or nil in tests.
func serverOf(r *http.Request) *caddyhttp.Server {
	server, _ := r.Context().Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server)
	return server
}
