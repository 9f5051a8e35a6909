package access

import (
	"cmp"
	"errors"
	"net/http"
	"strings"

	"github.com/rgate/rgate/internal/query"
)

// tokenPlace is where a request may have a token.
type tokenPlace struct {
	kind tokenKind
	name string
}

type tokenKind int

const (
	inHeader tokenKind = iota
	inCookie
	inQuery
)

const authorization = "Authorization"

// parseTokenPlace reads a place such as `cookie:session`.
func parseTokenPlace(text string) (place tokenPlace, ok bool) {
	kind, name, _ := strings.Cut(text, ":")
	place.name = name
	switch kind {
	case "header":
		place.kind, place.name = inHeader, http.CanonicalHeaderKey(name)
		return place, isHeaderName(name)
	case "cookie":
		place.kind = inCookie
		return place, isHeaderName(name)
	case "query":
		place.kind = inQuery
		return place, name != ""
	}
	return place, false
}

// isHeaderName reports whether a text is a token as in RFC 9110, section 5.6.2.
func isHeaderName(text string) bool {
	for i := range len(text) {
		if c := text[i]; c <= ' ' || c >= 0x7f || strings.IndexByte(`"(),/:;<=>?@[\]{}`, c) >= 0 {
			return false
		}
	}
	return text != ""
}

var (
	errNoToken       = errors.New("the request has no token")
	errSeveralTokens = errors.New("the request has several tokens")
	errBadCredential = errors.New("the request has a field for a token, but nothing or too much in it")
)

// findToken returns the token of a request. Equal tokens in several places are one.
// Different ones are an error: the backend might take another one than the gateway.
func findToken(r *http.Request, places []tokenPlace) (token string, err error) {
	for i := range places {
		found, err := places[i].find(r)
		if err != nil {
			return "", err
		}
		if token != "" && found != "" && found != token {
			return "", errSeveralTokens
		}
		token = cmp.Or(token, found)
	}
	if token == "" {
		return "", errNoToken
	}
	return token, nil
}

// holds reports whether a request has a token in the place.
func (p *tokenPlace) holds(r *http.Request, token string) bool {
	found, err := p.find(r)
	return err == nil && found == token
}

// find returns the token in a place, or none.
func (p *tokenPlace) find(r *http.Request) (token string, err error) {
	switch p.kind {
	case inHeader:
		values := r.Header[p.name]
		if len(values) > 1 {
			return "", errSeveralTokens
		}
		if len(values) == 1 {
			return tokenOf(values[0], p.name == authorization)
		}
	case inCookie:
		if len(r.Header["Cookie"]) == 0 {
			return "", nil
		}
		cookies := r.CookiesNamed(p.name)
		if len(cookies) > 1 {
			return "", errSeveralTokens
		}
		if len(cookies) == 1 {
			return cookies[0].Value, nil
		}
	case inQuery:
		count := 0
		for pair := range query.All(r.URL.RawQuery) {
			if pair.Name == p.name {
				token = pair.Value
				count++
			}
		}
		if count > 1 || !query.Agreed(r.URL.RawQuery, p.name) {
			return "", errSeveralTokens
		}
	}
	return token, nil
}

// tokenOf returns the token of a header field. Other schemes than Bearer are none
// of ours. In a field of its own, a token needs no scheme.
func tokenOf(value string, needsScheme bool) (string, error) {
	value = strings.TrimSpace(value)
	scheme, token, _ := strings.Cut(value, " ")
	if strings.EqualFold(scheme, "Bearer") {
		value = strings.TrimLeft(token, " ")
		if value == "" {
			return "", errBadCredential
		}
	} else if needsScheme {
		return "", nil
	}
	if strings.ContainsAny(value, " \t,") {
		return "", errBadCredential
	}
	return value, nil
}

// hide removes the token from a request, and leaves the rest of it as it is.
func (p *tokenPlace) hide(r *http.Request) {
	switch p.kind {
	case inHeader:
		delete(r.Header, p.name)
	case inCookie:
		p.hideCookie(r)
	case inQuery:
		r.URL.RawQuery = query.Without(r.URL.RawQuery, p.name)
		if path, _, ok := strings.Cut(r.RequestURI, "?"); ok {
			r.RequestURI = path
			if r.URL.RawQuery != "" {
				r.RequestURI += "?" + r.URL.RawQuery
			}
		}
	}
}

func (p *tokenPlace) hideCookie(r *http.Request) {
	lines := make([]string, 0, len(r.Header["Cookie"]))
	for _, line := range r.Header["Cookie"] {
		line = strings.TrimSpace(without(line, ";", func(pair string) bool {
			name, _, _ := strings.Cut(pair, "=")
			return strings.TrimSpace(name) == p.name
		}))
		if line != "" {
			lines = append(lines, line)
		}
	}
	if len(lines) == 0 {
		delete(r.Header, "Cookie")
		return
	}
	r.Header["Cookie"] = lines
}

// without leaves out some parts of a text.
func without(text, separator string, leaveOut func(part string) bool) string {
	parts := strings.Split(text, separator)
	kept := parts[:0]
	for _, part := range parts {
		if !leaveOut(part) {
			kept = append(kept, part)
		}
	}
	return strings.Join(kept, separator)
}
