package traffic

import (
	"encoding/binary"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/rgate/rgate/traffic/httpcache"
)

// sameness tells which requests are the same before a backend, and which are
// somebody's own.
type sameness struct {
	authorization bool     // the key has the field Authorization
	allCookies    bool     // or the field Cookie
	cookies       []string // or cookies of these names
	certificate   bool     // or the client's certificate
	user          bool     // or who was authenticated
}

// samenessOf finds out whose credentials the text of a key has.
func samenessOf(key string) (s sameness) {
	for rest := key; ; {
		_, after, ok := strings.Cut(rest, "{")
		if !ok {
			return s
		}
		var name string
		if name, rest, ok = strings.Cut(after, "}"); !ok {
			return s
		}
		if field, ok := strings.CutPrefix(name, "http.request.header."); ok {
			s.authorization = s.authorization || strings.EqualFold(field, "Authorization")
			s.allCookies = s.allCookies || strings.EqualFold(field, "Cookie")
		} else if cookie, ok := strings.CutPrefix(name, "http.request.cookie."); ok && cookie != "" {
			s.cookies = append(s.cookies, cookie)
		} else if strings.HasPrefix(name, "http.request.tls.client.") {
			s.certificate = true
		} else if strings.HasPrefix(name, "http.auth.user.") {
			s.user = true
		}
	}
}

// requestKey is what a request's answer may depend on: the request's line, the way
// that it goes, and all of its header fields, but for those that never tell users
// apart, which Vary has to name.
type requestKey struct {
	method, host, path, rawPath, query string
	secure                             bool
	route, backend                     string    // where it goes
	text                               string    // of the key in the options
	asked                              [4]string // method, host, path and query of the client
	fields                             []keyField
}

// keyField is a header field. It has a copy of the values, which handlers may change.
type keyField struct {
	name, value string
	more        []string
}

// of makes it the key of a request, and reports whether the answer may be shared at
// all.
func (k *requestKey) of(r *http.Request, s *sameness) bool {
	if r.ContentLength != 0 || r.TLS != nil && len(r.TLS.PeerCertificates) > 0 && !s.certificate {
		return false
	}
	for name, values := range r.Header {
		switch roleOf(name) {
		case incidental:
			continue
		case forbidding:
			return false
		case authorization:
			if !s.authorization {
				return false
			}
			continue
		case cookies:
			if !s.allCookies && !s.namesCookieOf(r) {
				return false
			}
			continue
		case demand:
			// Such a request may want an answer of its own.
			if asked := httpcache.ParseDirectives(values); asked.NoStore || asked.NoCache {
				return false
			}
			continue
		case accept:
			if slices.ContainsFunc(values, func(value string) bool { return strings.Contains(value, "text/event-stream") }) {
				return false
			}
		}
		f := keyField{name: name}
		if len(values) > 0 {
			f.value = values[0]
		}
		if len(values) > 1 {
			f.more = slices.Clone(values[1:])
		}
		k.fields = append(k.fields, f)
	}
	k.method, k.host, k.path, k.rawPath, k.query = r.Method, r.Host, r.URL.Path, r.URL.RawPath, r.URL.RawQuery
	k.secure = r.TLS != nil
	return true
}

// equal reports whether it is the same as the key of a request with this header.
func (k *requestKey) equal(o *requestKey, header http.Header) bool {
	if len(k.fields) != len(o.fields) || k.path != o.path || k.query != o.query || k.host != o.host || k.rawPath != o.rawPath ||
		k.method != o.method || k.secure != o.secure || k.route != o.route || k.backend != o.backend || k.text != o.text || k.asked != o.asked {
		return false
	}
	for i := range k.fields {
		f := &k.fields[i]
		values, ok := header[f.name]
		if !ok || len(values) == 0 && f.value != "" || len(values) > 0 && values[0] != f.value ||
			!slices.Equal(values[min(1, len(values)):], f.more) {
			return false
		}
	}
	return true
}

// reset makes it ready for another request.
func (k *requestKey) reset() {
	clear(k.fields)
	k.fields = k.fields[:0]
	k.method, k.host, k.path, k.rawPath, k.query = "", "", "", "", ""
	k.route, k.backend, k.text = "", "", ""
	k.asked = [4]string{}
}

// appendPart appends a text so that no two lists of texts become the same.
func appendPart(key []byte, part string) []byte {
	return append(binary.AppendUvarint(key, uint64(len(part))+1), part...)
}

// namesCookieOf reports whether a request has one of the cookies that the key names.
// If it has others alone, the key does not tell whose it is.
func (s *sameness) namesCookieOf(r *http.Request) bool {
	return len(s.cookies) > 0 && slices.ContainsFunc(r.Cookies(), func(c *http.Cookie) bool {
		return c.Value != "" && slices.ContainsFunc(s.cookies, func(name string) bool { return strings.EqualFold(name, c.Name) })
	})
}

// role is what a field of a request says about who may have the same answer.
type role int

const (
	plain         role = iota // those who send the same
	incidental                // those who do not, too
	authorization             // perhaps nobody else
	cookies                   // perhaps nobody else
	demand                    // nobody else, if it says so
	accept                    // those who send the same, unless it asks for a stream of events
	forbidding                // nobody else
)

// roleOf tells the role of a field. Those that are incidental are about the client's
// program, its connection or the request's way, and so differ between requests that
// ask for the same. All that is not known here counts: it may be a key to an API.
func roleOf(name string) role {
	switch name {
	case "Authorization":
		return authorization
	case "Cookie":
		return cookies
	case "Upgrade", "Proxy-Authorization", "Expect":
		return forbidding
	case "Cache-Control", "Pragma":
		return demand
	case "Accept":
		return accept
	case "User-Agent", "Connection", "Keep-Alive", "Proxy-Connection", "Dnt", "Sec-Gpc", "Priority", "Upgrade-Insecure-Requests",
		"X-Forwarded-For", "Forwarded", "Via", "X-Real-Ip",
		"X-Request-Id", "X-Correlation-Id", "Traceparent", "Tracestate", "B3":
		return incidental
	}
	if strings.HasPrefix(name, "X-B3-") || strings.HasPrefix(name, "Sec-Ch-Ua") {
		return incidental
	}
	return plain
}

// plainPath is a path without its encoding.
func plainPath(path string) string {
	if plain, err := url.PathUnescape(path); err == nil {
		return plain
	}
	return path
}
