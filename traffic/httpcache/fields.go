package httpcache

import (
	"net/textproto"
	"slices"
	"strings"
)

// Class is the class of a request field. It determines whether responses to requests with
// the field can be shared.
type Class uint8

// Classes of request fields. Fields that are not listed are Unknown, because a backend
// may use them for authorization.
const (
	Unknown    Class = iota
	Ignorable        // describes the user agent, the connection, proxies or traces
	Negotiated       // content negotiation: responses may depend on it
	Forwarding       // scheme, host and port received by an earlier proxy: part of the key
	Own              // evaluated by the cache
	Credential       // identifies the client
	Exclusive        // changes the request's meaning: the request bypasses the cache
	Constant         // set to a constant by the configuration: part of the key
	viaTrusted       // Ignorable from a trusted proxy, otherwise Exclusive
)

// ClassOf returns the class of a field by its canonical name. It does not know identity
// fields. trusted reports whether a trusted proxy sent the request.
func ClassOf(name string, trusted bool) Class {
	class, ok := classes[name]
	if !ok {
		class = classByPart(name)
	}
	if class == viaTrusted {
		if trusted {
			return Ignorable
		}
		return Exclusive
	}
	return class
}

// classByPart returns the class of a field that is not in classes.
func classByPart(name string) Class {
	if soundsSecret(name) {
		return Credential
	}
	at, found := slices.BinarySearchFunc(prefixes, name, func(p prefix, name string) int { return strings.Compare(p.text, name) })
	if !found {
		at--
	}
	if at >= 0 && strings.HasPrefix(name, prefixes[at].text) {
		return prefixes[at].class
	}
	return Unknown
}

// soundsSecret reports whether the name contains a word for credentials, such as token.
func soundsSecret(name string) bool {
	var room [64]byte
	folded := room[:0]
	for i := range len(name) {
		c := name[i]
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		folded = append(folded, c)
	}
	for _, part := range secretParts {
		if strings.Contains(string(folded), part) {
			return true
		}
	}
	return false
}

var secretParts = [...]string{
	"api-key", "apikey", "auth-token", "access-token", "session", "secret", "csrf-token", "xsrf-token", "client-cert", "clientcert",
}

// prefix is a name prefix and the class of the fields that match it.
type prefix struct {
	text  string
	class Class
}

// classes maps field names to classes, and prefixes maps name prefixes. No prefix begins
// with another one.
var classes, prefixes = tabulate(map[Class]string{
	Ignorable:  ignorableFields,
	Negotiated: negotiatedFields,
	Forwarding: "X-Forwarded-Proto X-Forwarded-Host X-Forwarded-Port",
	viaTrusted: "Forwarded X-Forwarded-Prefix X-Forwarded-Server X-Forwarded-Ssl X-Forwarded-Scheme",
	Own:        "Cache-Control Pragma Range If-Range If-Match If-None-Match If-Modified-Since If-Unmodified-Since",
	Credential: credentialFields,
	Exclusive:  exclusiveFields,
})

func tabulate(lists map[Class]string) (whole map[string]Class, beginnings []prefix) {
	whole = make(map[string]Class)
	for class, names := range lists {
		for name := range strings.FieldsSeq(names) {
			if text, ok := strings.CutSuffix(name, "*"); ok {
				beginnings = append(beginnings, prefix{text, class})
			} else {
				whole[name] = class
			}
		}
	}
	slices.SortFunc(beginnings, func(a, b prefix) int { return strings.Compare(a.text, b.text) })
	return whole, beginnings
}

const ignorableFields = `
	User-Agent Connection Keep-Alive Proxy-Connection Te Dnt Sec-Gpc Priority Upgrade-Insecure-Requests Referer Origin
	Sec-Fetch-Site Sec-Fetch-Mode Sec-Fetch-User Sec-Fetch-Dest Sec-Fetch-* Sec-Purpose Purpose X-Moz X-Purpose
	Sec-Speculation-Tags Service-Worker Service-Worker-* Alt-Used Sec-Ch-Ua Sec-Ch-Ua-Mobile Sec-Ch-Ua-Platform Sec-Ch-Ua-*
	From Date Max-Forwards Content-Length Content-Type Early-Data Incremental Idempotency-Key

	Via X-Forwarded-For X-Real-Ip X-Client-Ip X-Cluster-Client-Ip True-Client-Ip Fastly-Client-Ip
	Cf-Ray Cf-Connecting-Ip* Cf-Pseudo-Ipv4 Cf-Visitor Cf-Worker Cf-Ew-Via Cf-Request-Id Cf-Warp-Tag-Id Cdn-Loop
	X-Amz-Cf-Id X-Amzn-Trace-Id X-Azure-* X-Fd-Healthprobe X-Arr-* X-Appservice-Proto Disguised-Host Was-Default-Hostname
	X-Cloud-Trace-Context Fastly-Ff Fastly-Ssl Fastly-Client X-Varnish Akamai-Origin-Hop X-Akamai-* Fly-* X-Vercel-*
	X-Nf-Request-Id Do-Connecting-Ip X-Request-Start X-Queue-Start X-Envoy-* X-Kong-Request-Id X-Scheme X-Nginx-Proxy
	Surrogate-Capability

	X-Request-Id X-Correlation-Id X-Trace-Id Request-Id Correlation-Context Request-Context X-Ms-Client-Request-Id
	Traceparent Tracestate Baggage B3 X-B3-* Uber-Trace-Id Uberctx-* Sentry-Trace X-Datadog-* Newrelic X-Newrelic-*
	Elastic-Apm-Traceparent X-Instana-* X-Dynatrace X-Ot-Span-Context Ot-* Lightstep-* Sw8* Grpc-Trace-Bin
	X-Honeycomb-Trace X-Pinpoint-*

	Postman-Token Amz-Sdk-* X-Amz-User-Agent X-Goog-Api-Client X-Firebase-Client X-Android-Package
	X-Ios-Bundle-Identifier Apollographql-Client-* X-Stainless-* X-Client-Info X-User-Agent X-Grpc-Web X-Turbo-Request-Id`

const negotiatedFields = `
	Accept Accept-Language Accept-Encoding Accept-Charset X-Requested-With Sec-Ch-Prefers-* Save-Data
	Dpr Width Viewport-Width Device-Memory Sec-Ch-Dpr Sec-Ch-Width Sec-Ch-Viewport-Width Sec-Ch-Viewport-Height
	Sec-Ch-Device-Memory Rtt Downlink Ect Available-Dictionary Dictionary-Id Cf-Ipcountry Cloudfront-* Fastly-Geo*
	Hx-* Turbo-Frame X-Pjax X-Inertia* X-Up-* Rsc Next-* Access-Control-Request-* Prefer Accept-Datetime`

const credentialFields = `
	Authorization Proxy-Authorization Cookie X-Amz-Security-Token X-Goog-Iap-* Cf-Access-* X-Amzn-Oidc-*
	X-Ms-Client-Principal* X-Ms-Token-* X-Forwarded-User X-Forwarded-Email X-Forwarded-Groups
	X-Forwarded-Preferred-Username Remote-* X-Auth-Request-* X-Authentik-* X-Webauth-* X-Ssl-Client-* Ssl-Client-*
	X-Firebase-Appcheck Sec-Private-State-Token* Sec-Redemption-Record Sec-Browsing-Topics Dpop Signature*
	X-Hub-Signature* Last-Event-Id X-Vercel-Oidc-Token`

// exclusiveFields lists Upgrade, Expect, and fields that override the method, path, host or
// scheme in some servers.
const exclusiveFields = `
	Upgrade Expect X-Http-Method X-Http-Method-Override X-Method-Override X-Original-Url X-Rewrite-Url
	X-Host X-Original-Host X-Forwarded-Uri X-Forwarded-Method Front-End-Https X-Url-Scheme`

// Fields holds the options for request fields.
type Fields struct {
	// CookiesByTTL treats cookies as Unknown, so that they only affect responses whose
	// freshness the options define.
	CookiesByTTL bool

	identity []string        // canonical names of identity fields; may end with `*`
	covered  map[string]bool // canonical names of ignored fields and fields in the key
	prefixes []string        // name prefixes of such fields
	others   bool            // `*` was listed; see NewFields
	id       string
}

// NewFields returns the options for ignored fields and fields in the key. A name may end
// with `*`, which matches any suffix. `*` alone matches all fields of the classes Unknown
// and Credential, except Authorization, Proxy-Authorization, Cookie and identity fields.
// In identity fields, the gateway forwards the authenticated client to backends.
func NewFields(ignored, keyed, identity []string) *Fields {
	f := &Fields{identity: identity}
	for _, name := range append(slices.Clone(ignored), keyed...) {
		name = textproto.CanonicalMIMEHeaderKey(name)
		if text, ok := strings.CutSuffix(name, "*"); !ok {
			if f.covered == nil {
				f.covered = make(map[string]bool)
			}
			f.covered[name] = true
		} else if text == "" {
			f.others = true
		} else {
			f.prefixes = append(f.prefixes, text)
		}
	}
	var names []string
	for _, name := range ignored {
		names = append(names, strings.ToLower(name))
	}
	slices.Sort(names)
	f.id = strings.Join(slices.Compact(names), " ")
	return f
}

// ID returns the sorted names of the ignored fields, as a part of keys.
func (f *Fields) ID() string { return f.id }

// Covers reports whether a field is ignored or part of the key.
func (f *Fields) Covers(name string) bool {
	if f.covered[name] {
		return true
	}
	for _, text := range f.prefixes {
		if strings.HasPrefix(name, text) {
			return true
		}
	}
	return f.others && !isAuthorization(name) && name != "Cookie" && !f.isIdentity(name) && isCoveredByAll(ClassOf(name, false))
}

func isAuthorization(name string) bool {
	return name == "Authorization" || name == "Proxy-Authorization"
}

// isIdentity reports whether the gateway forwards the authenticated client in the field.
func (f *Fields) isIdentity(name string) bool {
	return f != nil && slices.ContainsFunc(f.identity, func(known string) bool {
		beginning, isPrefix := strings.CutSuffix(known, "*")
		return name == known || isPrefix && strings.HasPrefix(name, beginning)
	})
}

func isCoveredByAll(class Class) bool { return class == Unknown || class == Credential }

// Source describes the values that the handlers of a configuration assign to a field.
type Source struct {
	Constants  []string // the constant values
	Credential bool     // a value may identify the client or is unknown
	Unseen     bool     // the reverse proxy sets the field after the cache
}

// Rules classifies the request fields of a route.
type Rules struct {
	*Fields
	Set     map[string]Source // by canonical field name
	Trusted bool              // a trusted proxy sent the request
}

// Class returns the class of a field with these values.
func (r *Rules) Class(name string, values []string) Class {
	class := ClassOf(name, r.Trusted)
	if class == Unknown && r.isIdentity(name) {
		class = Credential
	}
	if class == Own {
		return class
	}
	if !r.unlimited() && r.Covers(name) {
		return Ignorable
	}
	if name == "Cookie" && r.Fields != nil && r.CookiesByTTL {
		return Unknown
	}
	if source, ok := r.Set[name]; ok {
		switch {
		case class != Ignorable && class != Negotiated && source.isConstant(values):
			return Constant
		case source.Credential:
			return Credential
		}
	}
	return class
}

// unlimited reports whether no fields are ignored or part of the key.
func (f *Fields) unlimited() bool {
	return f == nil || f.covered == nil && f.prefixes == nil && !f.others
}

func (s *Source) isConstant(values []string) bool {
	for _, value := range values {
		if !slices.Contains(s.Constants, value) {
			return false
		}
	}
	return len(values) > 0
}
