package traffic

import (
	"net/http"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"weak"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"golang.org/x/net/http/httpguts"

	"github.com/rgate/rgate/policy"
	"github.com/rgate/rgate/traffic/httpcache"
)

// sharing tells which requests may have the same response: for the cache, for kept
// responses of a fallback, and for coalescing.
type sharing struct {
	fields      *httpcache.Fields
	parts       []policy.Key // of the key in the options
	cookies     []string     // that the key tells apart, if it has not all of them
	certificate bool         // the key tells apart the certificates of clients
	user        bool         // or the users whom policies have found out
	consumer    bool         // or the consumers
	token       bool         // or the fields Authorization
	account     bool         // or whatever else is known of users
	sources     atomic.Pointer[serverSources]
}

// newSharing makes the rules of a policy of its options.
func newSharing(key string, ignored []string) *sharing {
	s := new(sharing)
	key = policy.ExpandPlaceholders(key)
	var keyed []string
	for _, text := range placeholder.FindAllString(key, -1) {
		s.parts = append(s.parts, policy.ParseKey(text))
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
	if httpcache.NewFields(ignored, keyed).Covers("Cookie") {
		s.cookies = nil
	} else if s.cookies != nil {
		keyed = append(keyed, "Cookie")
	}
	s.fields = httpcache.NewFields(ignored, keyed)
	s.token = s.fields.Covers("Authorization")
	return s
}

// checkIgnoredFields reports the first name of the option ignore_fields that is wrong.
func checkIgnoredFields(names []string) error {
	for _, name := range names {
		field := strings.TrimSuffix(name, "*")
		switch {
		case name == "" || field != "" && !httpguts.ValidHeaderFieldName(field) || strings.Contains(field, "*"):
			return policy.Optionf("ignore_fields", "invalid field name %q: must be a name such as X-Org-Id, the beginning of names such as X-Acme-*, or *", name)
		case name == field && httpcache.ClassOf(http.CanonicalHeaderKey(field), false) == httpcache.Own, strings.EqualFold(name, "Upgrade"):
			return policy.Optionf("ignore_fields", "%s cannot be ignored: remove it", name)
		}
	}
	return nil
}

// read reads what decides about sharing the response to a request. If ignore is true,
// what it says in Cache-Control does not matter.
func (s *sharing) read(r *http.Request, ignore bool) httpcache.Request {
	if r.Method == http.MethodGet || r.Method == http.MethodHead {
		policy.HasBody(r) // makes the length known
	}
	var user, consumer string
	if repl, ok := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer); ok {
		user, _ = repl.GetString("http.auth.user.id") // also by handlers that are not of rgate
		if s.consumer {
			consumer, _ = repl.GetString("http.auth.user.consumer")
		}
	}
	known := httpcache.Request{
		UserKeyed:     s.user && user != "",
		ConsumerKeyed: consumer != "" && r.Header[policy.HeaderUserID] == nil,
		TokenKeyed:    s.token && r.Header["Authorization"] != nil,
		Rules:         s.rulesFor(r),
	}
	switch {
	case known.UserKeyed:
	case r.TLS != nil && len(r.TLS.PeerCertificates) > 0 && !s.certificate:
		known.Identified = true
	case !known.ConsumerKeyed && !known.TokenKeyed && !s.account:
		known.Identified = user != "" || policy.Authenticated(r)
	}
	return httpcache.ReadRequest(r, ignore, known)
}

func (s *sharing) rulesFor(r *http.Request) httpcache.Rules {
	return httpcache.Rules{Fields: s.fields, Set: s.sourcesFor(r), Trusted: policy.TrustedPeer(r)}
}

// varied is the part of a request on which what its backend names in Vary depends.
func (s *sharing) varied(r *http.Request) httpcache.Request {
	return httpcache.Request{Header: r.Header, Rules: s.rulesFor(r), Received: r}
}

// namesCookieOf reports whether a request has one of the cookies that the key names.
// If it has others alone, the key does not tell whose it is.
func (s *sharing) namesCookieOf(r *http.Request) bool {
	return slices.ContainsFunc(r.Cookies(), func(c *http.Cookie) bool {
		return c.Value != "" && slices.ContainsFunc(s.cookies, func(name string) bool { return strings.EqualFold(name, c.Name) })
	})
}

// appendTo appends to a key what the options and the configuration add to it.
func (s *sharing) appendTo(key []byte, r *http.Request, q *httpcache.Request) []byte {
	for i := range s.parts {
		key = appendText(key, s.parts[i].Of(r))
	}
	if id := s.fields.ID(); id != "" {
		key = appendText(key, id)
	}
	if q.Constant {
		key = q.AppendConstants(key)
	}
	return key
}

// serverSources is what the handlers of a server set the fields of requests to.
type serverSources struct {
	server  *caddyhttp.Server
	sources map[string]httpcache.Source
}

// sourcesFor returns what the handlers of a request's server set fields to.
func (s *sharing) sourcesFor(r *http.Request) map[string]httpcache.Source {
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

// allSources has those of all servers that requests have come to, as long as there are
// these servers.
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
	add := func(set policy.FieldSet) {
		source := sources[set.Name]
		switch class := whatSets(set.Text); {
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
	policy.EachFieldSetOf(server, add)
	allSources.byServer[at] = sources
	runtime.AddCleanup(server, func(at weak.Pointer[caddyhttp.Server]) {
		allSources.Lock()
		defer allSources.Unlock()
		delete(allSources.byServer, at)
	}, at)
	return sources
}

// whatSets returns what a text in a configuration makes of a field: Constant if the text is
// the same for everyone, Unknown if it is of the request but not of who sent it, and
// Credential otherwise.
func whatSets(text string) httpcache.Class {
	class := httpcache.Constant
	for _, found := range placeholder.FindAllString(text, -1) {
		name := strings.Trim(found, "{}")
		field, isField := strings.CutPrefix(name, "http.request.header.")
		switch {
		case hasAnyPrefix(name, "env.", "file.", "system."):
		case isField && httpcache.ClassOf(http.CanonicalHeaderKey(field), false) == httpcache.Credential,
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
