package policy

import (
	"context"
	"io"
	"net/http"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/rgate/rgate/internal/entry"
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

const strippedVar = "rgate.identity_stripped"

// StripIdentity takes away what a client says about its own identity: X-User-ID,
// X-Gateway-Service and every X-Consumer-*, among header fields and trailers. Fields
// that the client's Connection field names are taken away, too: they are for this
// server alone, and the proxy would remove what the gateway sets in their place. Of the
// calls for one request, only the first has an effect, so that it takes nothing that the
// gateway itself has set.
func StripIdentity(r *http.Request) {
	if caddyhttp.GetVar(r.Context(), strippedVar) != nil {
		return
	}
	KeepIdentity(r)
	stripHop(r.Header)
	stripFrom(r.Header)
	if r.Trailer != nil {
		stripFrom(r.Trailer)
		r.Body = &trailerGuard{r.Body, r.Trailer}
	}
}

type trustedIdentityKey struct{}

// WithTrustedIdentity returns a context in which policies are to be provisioned whose
// requests keep what they say about their sender.
func WithTrustedIdentity(ctx caddy.Context) caddy.Context {
	ctx.Context = context.WithValue(ctx.Context, trustedIdentityKey{}, true)
	return ctx
}

// SiteIdentity is what modules embed that authenticate or authorise requests.
type SiteIdentity struct {
	// Passes on what clients say about their identity on the paths of the site where no
	// policy authenticates or authorises requests. It is for sites behind a proxy that
	// sets these fields; a gateway has `trust_identity`. Default: false.
	KeepIdentity bool `json:"keep_identity,omitempty"`
}

// StripIdentityInSite makes StripIdentity run first for all requests of the site that is
// being provisioned, also for those that the module which calls it never sees.
func (s *SiteIdentity) StripIdentityInSite(ctx caddy.Context) error {
	inGateway := Standing(ctx).Gateway != ""
	switch {
	case s.KeepIdentity && inGateway:
		return Optionf("keep_identity", "keep_identity is for sites without a gateway: set trust_identity of the gateway, or remove keep_identity")
	case s.KeepIdentity || ctx.Value(trustedIdentityKey{}) != nil:
		return nil
	}
	if site := entry.Prepare(ctx, "identity", StripIdentity); site != "" && !inGateway {
		ctx.Logger().Warn("header fields in which clients say who they are are removed in all of this site, also where nothing authenticates: keep_identity passes them on",
			zap.String("site", site))
	}
	return nil
}

func stripFrom(fields http.Header) {
	for name := range fields {
		if name == HeaderUserID || name == HeaderGatewayService || isConsumer(name) || lookalike(name) {
			delete(fields, name)
		}
	}
}

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
}

func (b *trailerGuard) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err == io.EOF {
		stripFrom(b.trailers)
	}
	return n, err
}

// Introduce tells the backend who was authenticated by a handler that is not of rgate,
// such as Caddy's basic_auth, if nobody else has.
func Introduce(r *http.Request) {
	if _, known := r.Header[HeaderUserID]; known {
		return
	}
	if repl, ok := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer); ok {
		if user, ok := repl.GetString("http.auth.user.id"); ok && user != "" {
			r.Header[HeaderUserID] = []string{user}
		}
	}
}

// KeepIdentity makes StripIdentity do nothing for a request, whose sender is
// trusted.
func KeepIdentity(r *http.Request) {
	caddyhttp.SetVar(r.Context(), strippedVar, true)
}

func isConsumer(name string) bool { return strings.HasPrefix(name, consumerPrefix) }

// lookalike reports whether a field would be taken for one about identity by a
// server that, like CGI, makes underscores of dashes.
func lookalike(name string) bool {
	if strings.IndexByte(name, '_') < 0 {
		return false
	}
	switch name = http.CanonicalHeaderKey(strings.ReplaceAll(name, "_", "-")); name {
	case HeaderUserID, HeaderGatewayService:
		return true
	}
	return isConsumer(name)
}

const authenticatedVar = "rgate.authenticated"

// Authenticate notes that somebody in particular has sent a request. What is kept
// for others, such as a cache, must take it as it takes one with an Authorization
// field, which may have been hidden from the backend.
func Authenticate(r *http.Request) {
	caddyhttp.SetVar(r.Context(), authenticatedVar, true)
}

// Authenticated reports whether somebody in particular has sent a request: whom a
// policy has authenticated, or who sends credentials.
func Authenticated(r *http.Request) bool {
	_, authenticated := PlaceAndSender(r)
	return authenticated
}

// PlaceAndSender is PlaceOf and Authenticated in one, which takes less time than both.
func PlaceAndSender(r *http.Request) (place Place, authenticated bool) {
	vars, _ := r.Context().Value(caddyhttp.VarsCtxKey).(map[string]any)
	if exchange, ok := vars[ExchangeVar].(Exchange); ok {
		place = exchange.Place()
	}
	return place, vars[authenticatedVar] != nil || r.Header["Authorization"] != nil
}
