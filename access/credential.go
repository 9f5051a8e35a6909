package access

import (
	"net/http"
	"strings"

	"github.com/rgate/rgate/internal/query"
)

// carrier is where in a request a key is: in a header field, in a parameter of the
// query, or in a cookie. Those without a name are not looked at.
type carrier struct{ header, query, cookie string }

// find returns the key of a request: the first that is there, in the order of the
// fields above; or nothing. A parameter that backends read in different ways has none.
func (c *carrier) find(r *http.Request) string {
	if c.header != "" {
		if key := c.inHeader(r); key != "" {
			return key
		}
	}
	if c.query != "" && query.Agreed(r.URL.RawQuery, c.query) {
		if key := query.First(r.URL.RawQuery, c.query); key != "" {
			return key
		}
	}
	if c.cookie != "" {
		if cookie, err := r.Cookie(c.cookie); err == nil {
			return cookie.Value
		}
	}
	return ""
}

// inHeader returns what is in the header field. In Authorization, a key follows the
// name of a scheme; those that are not for keys are left to others.
func (c *carrier) inHeader(r *http.Request) string {
	values := r.Header[c.header]
	if len(values) == 0 {
		return ""
	}
	if c.header != "Authorization" {
		return values[0]
	}
	scheme, key, _ := strings.Cut(values[0], " ")
	if strings.EqualFold(scheme, "ApiKey") || strings.EqualFold(scheme, "Bearer") {
		return strings.TrimLeft(key, " ")
	}
	return ""
}

// hide takes the key out of a request, wherever it may be. Whatever else is there
// stays as it was, byte for byte.
func (c *carrier) hide(r *http.Request) {
	if c.header != "" {
		delete(r.Header, c.header)
	}
	if c.query != "" {
		without := query.Without(r.URL.RawQuery, c.query)
		if without != r.URL.RawQuery {
			r.URL.RawQuery = without
			r.RequestURI = r.URL.RequestURI()
		}
	}
	if c.cookie != "" {
		c.hideCookie(r)
	}
}

func (c *carrier) hideCookie(r *http.Request) {
	lines := r.Header["Cookie"]
	kept := make([]string, 0, len(lines))
	for _, line := range lines {
		line = keepParts(line, ";", func(pair string) bool {
			name, _, _ := strings.Cut(pair, "=")
			return strings.TrimSpace(name) != c.cookie
		})
		if line = strings.TrimSpace(line); line != "" {
			kept = append(kept, line)
		}
	}
	if len(kept) == 0 {
		delete(r.Header, "Cookie")
		return
	}
	r.Header["Cookie"] = kept
}

// keepParts keeps those parts of a list that are to be kept.
func keepParts(list, separator string, keep func(string) bool) string {
	var kept []string
	for part := range strings.SplitSeq(list, separator) {
		if keep(part) {
			kept = append(kept, part)
		}
	}
	return strings.Join(kept, separator)
}
