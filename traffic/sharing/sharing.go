// Package sharing determines which requests may share a response. It is used by the
// cache, by the stored responses of fallbacks and by request coalescing.
package sharing

import (
	"net/http"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"weak"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"golang.org/x/net/http/httpguts"

	"github.com/rgate/rgate/internal/httpx"
	"github.com/rgate/rgate/internal/options"
	"github.com/rgate/rgate/internal/placeholder"
	"github.com/rgate/rgate/internal/trust"
	"github.com/rgate/rgate/policy"
	"github.com/rgate/rgate/traffic/httpcache"
)

// Rules determines which requests may share a response, based on the options key and
// ignore_fields of a policy.
type Rules struct {
	Fields         *httpcache.Fields
	KeyHasIdentity bool // the key contains a placeholder of the authenticated user

	parts       []placeholder.Key // placeholders in the key
	cookies     []string          // names of the cookies in the key; nil if the key contains all or none
	certificate bool              // the key contains a placeholder of the client certificate
	user        bool              // the key contains the user ID
	consumer    bool              // the key contains the consumer
	token       bool              // the key contains Authorization
	sources     atomic.Pointer[serverSources]
}

var placeholderPattern = regexp.MustCompile(`\{[^{}]+\}`)

// identityFields lists the request fields in which the gateway forwards the authenticated
// client to backends.
var identityFields = []string{trust.HeaderUserID, trust.ConsumerPrefix + "*"}

// New returns the rules for the options of a policy.
func New(key string, ignored []string) *Rules {
	s := new(Rules)
	key = placeholder.Expand(key)
	var keyed []string
	for _, text := range placeholderPattern.FindAllString(key, -1) {
		s.parts = append(s.parts, placeholder.ParseKey(text))
		name := strings.Trim(text, "{}")
		if field, ok := strings.CutPrefix(name, "http.request.header."); ok {
			keyed = append(keyed, field)
		} else if cookie, ok := strings.CutPrefix(name, "http.request.cookie."); ok && cookie != "" {
			s.cookies = append(s.cookies, cookie)
		} else if strings.HasPrefix(name, "http.request.tls.client.") {
			s.certificate = true
		} else if name == "http.auth.user.id" {
			s.user = true
		} else if name == "http.auth.user.consumer" {
			s.consumer = true
		}
	}
	if httpcache.NewFields(ignored, keyed, identityFields).Covers("Cookie") {
		s.cookies = nil
	} else if s.cookies != nil {
		keyed = append(keyed, "Cookie")
	}
	s.Fields = httpcache.NewFields(ignored, keyed, identityFields)
	s.token = s.Fields.Covers("Authorization")
	return s
}

// CheckIgnoredFields returns an error for the first invalid name in ignore_fields.
func CheckIgnoredFields(names []string) error {
	for _, name := range names {
		field := strings.TrimSuffix(name, "*")
		switch {
		case name == "" || field != "" && !httpguts.ValidHeaderFieldName(field) || strings.Contains(field, "*"):
			return options.Errorf("ignore_fields", "invalid field name %q: must be a name such as X-Org-Id, a prefix such as X-Acme-*, or *", name)
		case name == field && httpcache.ClassOf(http.CanonicalHeaderKey(field), false) == httpcache.Own, strings.EqualFold(name, "Upgrade"):
			return options.Errorf("ignore_fields", "%s cannot be ignored: remove it", name)
		}
	}
	return nil
}

// Read returns the properties of a request that determine whether its response may be
// shared. If ignore is true, Cache-Control and Pragma of the request are ignored.
func (s *Rules) Read(r *http.Request, ignore bool) httpcache.Request {
	if r.Method == http.MethodGet || r.Method == http.MethodHead {
		httpx.HasBody(r) // determines the length of the body
	}
	var user, consumer string
	if repl, ok := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer); ok {
		user, _ = repl.GetString("http.auth.user.id") // Caddy's authentication sets it, too
		if s.consumer {
			consumer, _ = repl.GetString("http.auth.user.consumer")
		}
	}
	known := httpcache.Request{
		UserKeyed:     s.user && user != "",
		ConsumerKeyed: consumer != "" && r.Header[trust.HeaderUserID] == nil,
		TokenKeyed:    s.token && r.Header["Authorization"] != nil,
		Rules:         s.rulesFor(r),
	}
	switch {
	case known.UserKeyed:
	case r.TLS != nil && len(r.TLS.PeerCertificates) > 0 && !s.certificate:
		known.Identified = true
	case !known.ConsumerKeyed && !known.TokenKeyed && !s.KeyHasIdentity:
		known.Identified = user != "" || policy.IsAuthenticated(r)
	}
	return httpcache.ReadRequest(r, ignore, known)
}

func (s *Rules) rulesFor(r *http.Request) httpcache.Rules {
	return httpcache.Rules{Fields: s.Fields, Set: s.sourcesFor(r), Trusted: trust.TrustedPeer(r)}
}

// Varied returns a Request with the header fields that a response's Vary may name.
func (s *Rules) Varied(r *http.Request) httpcache.Request {
	return httpcache.Request{Header: r.Header, Rules: s.rulesFor(r), Received: r}
}

// HasOtherCookies reports whether the key contains cookies, but the request has only
// other cookies. The key then does not identify the client.
func (s *Rules) HasOtherCookies(r *http.Request) bool {
	return len(s.cookies) > 0 && r.Header["Cookie"] != nil && !slices.ContainsFunc(r.Cookies(), func(c *http.Cookie) bool {
		return c.Value != "" && slices.ContainsFunc(s.cookies, func(name string) bool { return strings.EqualFold(name, c.Name) })
	})
}

// AppendTo appends the parts of the key that come from the options and the configuration.
func (s *Rules) AppendTo(key []byte, r *http.Request, q *httpcache.Request) []byte {
	for i := range s.parts {
		key = AppendText(key, s.parts[i].Of(r))
	}
	if id := s.Fields.ID(); id != "" {
		key = AppendText(key, id)
	}
	if q.Constant {
		key = q.AppendConstants(key)
	}
	return key
}

// serverSources holds the sources of request fields for a server.
type serverSources struct {
	server  *caddyhttp.Server
	sources map[string]httpcache.Source
}

// sourcesFor returns the values that handlers of the request's server assign to request
// fields.
func (s *Rules) sourcesFor(r *http.Request) map[string]httpcache.Source {
	server, _ := r.Context().Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server)
	if server == nil {
		return nil
	}
	known := s.sources.Load()
	if known == nil || known.server != server {
		known = &serverSources{server, sourcesOf(server)}
		s.sources.Store(known)
	}
	return known.sources
}

// allSources holds the sources of all servers that received requests. Entries are removed
// when their server is garbage collected.
var allSources = struct {
	sync.Mutex
	byServer map[weak.Pointer[caddyhttp.Server]]map[string]httpcache.Source
}{byServer: make(map[weak.Pointer[caddyhttp.Server]]map[string]httpcache.Source)}

func sourcesOf(server *caddyhttp.Server) map[string]httpcache.Source {
	allSources.Lock()
	defer allSources.Unlock()
	at := weak.Make(server)
	sources, ok := allSources.byServer[at]
	if ok {
		return sources
	}
	sources = make(map[string]httpcache.Source)
	repl := caddy.NewReplacer()
	add := func(set trust.FieldSet) {
		source := sources[set.Name]
		switch class := classOfText(set.Text); {
		case set.Last:
			source.Unseen = source.Unseen || class != httpcache.Constant
		case class == httpcache.Constant:
			if text := repl.ReplaceAll(set.Text, ""); !slices.Contains(source.Constants, text) {
				source.Constants = append(source.Constants, text)
			}
		case class == httpcache.Credential:
			source.Credential = true
		}
		sources[set.Name] = source
	}
	trust.EachFieldSetOf(server, add)
	allSources.byServer[at] = sources
	runtime.AddCleanup(server, func(at weak.Pointer[caddyhttp.Server]) {
		allSources.Lock()
		defer allSources.Unlock()
		delete(allSources.byServer, at)
	}, at)
	return sources
}

// credentials classifies fields without the options of a policy.
var credentials = httpcache.Rules{Fields: httpcache.NewFields(nil, nil, identityFields)}

// classOfText returns the class of a field with a configured value. It is Constant if the
// value is the same for all requests, and Unknown if it depends on the request but not on
// credentials. Otherwise, also for unknown placeholders, it is Credential.
func classOfText(text string) httpcache.Class {
	class := httpcache.Constant
	for _, found := range placeholderPattern.FindAllString(text, -1) {
		name := strings.Trim(found, "{}")
		field, isField := strings.CutPrefix(name, "http.request.header.")
		switch {
		case hasAnyPrefix(name, "env.", "file.", "system."):
		case isField && credentials.Class(http.CanonicalHeaderKey(field), nil) == httpcache.Credential,
			hasAnyPrefix(name, "http.request.cookie.", "http.request.tls.client."):
			return httpcache.Credential
		case hasAnyPrefix(name, "http.request.", "http.rgate.", "time.") || name == "http.vars.client_ip":
			class = httpcache.Unknown
		default:
			return httpcache.Credential
		}
	}
	return class
}

func hasAnyPrefix(text string, prefixes ...string) bool {
	return slices.ContainsFunc(prefixes, func(prefix string) bool { return strings.HasPrefix(text, prefix) })
}
