package httpx

import (
	"net/http"
	"strings"

	"github.com/rgate/rgate/internal/query"
)

// CredentialSource is a part of a request that can contain a credential.
type CredentialSource struct {
	Kind SourceKind
	Name string // in canonical form for a header field
}

// SourceKind is the kind of a CredentialSource.
type SourceKind int

// Kinds of credential sources.
const (
	Header SourceKind = iota
	Cookie
	QueryParameter
)

// ParseCredentialSource parses a source such as `cookie:session`.
func ParseCredentialSource(text string) (source CredentialSource, ok bool) {
	kind, name, _ := strings.Cut(text, ":")
	source.Name = name
	switch kind {
	case "header":
		source.Kind, source.Name = Header, http.CanonicalHeaderKey(name)
		return source, isToken(name)
	case "cookie":
		source.Kind = Cookie
		return source, isToken(name)
	case "query":
		source.Kind = QueryParameter
		return source, name != ""
	}
	return source, false
}

// isToken reports whether a string is a token (RFC 9110, section 5.6.2).
func isToken(text string) bool {
	for i := range len(text) {
		if c := text[i]; c <= ' ' || c >= 0x7f || strings.IndexByte(`"(),/:;<=>?@[\]{}`, c) >= 0 {
			return false
		}
	}
	return text != ""
}

// First returns the first value in the source, or an empty string. It ignores query
// parameters that backends can read differently.
func (s *CredentialSource) First(r *http.Request) string {
	switch s.Kind {
	case Header:
		if values := r.Header[s.Name]; len(values) > 0 {
			return values[0]
		}
	case Cookie:
		if cookie, err := r.Cookie(s.Name); err == nil {
			return cookie.Value
		}
	case QueryParameter:
		if query.Agreed(r.URL.RawQuery, s.Name) {
			return query.First(r.URL.RawQuery, s.Name)
		}
	}
	return ""
}

// Only returns the value in the source, or an empty string. ok is false if there are
// several values, or if backends can read the query parameter differently.
func (s *CredentialSource) Only(r *http.Request) (value string, ok bool) {
	switch s.Kind {
	case Header:
		values := r.Header[s.Name]
		if len(values) == 0 {
			return "", true
		}
		return values[0], len(values) == 1
	case Cookie:
		if len(r.Header["Cookie"]) == 0 {
			return "", true
		}
		cookies := r.CookiesNamed(s.Name)
		if len(cookies) == 0 {
			return "", true
		}
		return cookies[0].Value, len(cookies) == 1
	}
	count := 0
	for pair := range query.All(r.URL.RawQuery) {
		if pair.Name == s.Name {
			value = pair.Value
			count++
		}
	}
	return value, count <= 1 && query.Agreed(r.URL.RawQuery, s.Name)
}

// Remove removes the source from a request. It keeps all other bytes unchanged.
func (s *CredentialSource) Remove(r *http.Request) {
	switch s.Kind {
	case Header:
		delete(r.Header, s.Name)
	case Cookie:
		s.removeCookie(r)
	case QueryParameter:
		rest := query.Without(r.URL.RawQuery, s.Name)
		if rest == r.URL.RawQuery {
			return
		}
		r.URL.RawQuery = rest
		if path, _, ok := strings.Cut(r.RequestURI, "?"); ok {
			r.RequestURI = path
			if rest != "" {
				r.RequestURI += "?" + rest
			}
		}
	}
}

func (s *CredentialSource) removeCookie(r *http.Request) {
	lines := r.Header["Cookie"]
	if len(lines) == 0 {
		return
	}
	kept := make([]string, 0, len(lines))
	for _, line := range lines {
		var pairs []string
		for pair := range strings.SplitSeq(line, ";") {
			if name, _, _ := strings.Cut(pair, "="); strings.TrimSpace(name) != s.Name {
				pairs = append(pairs, pair)
			}
		}
		if line = strings.TrimSpace(strings.Join(pairs, ";")); line != "" {
			kept = append(kept, line)
		}
	}
	if len(kept) == 0 {
		delete(r.Header, "Cookie")
		return
	}
	r.Header["Cookie"] = kept
}
