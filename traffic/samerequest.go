package traffic

import (
	"encoding/binary"
	"net/http"
	"slices"
	"strings"
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

// appendKey appends what a request's answer may depend on: the request's line and
// all of its header fields, but for those that never tell users apart, which Vary
// has to name. It reports whether the answer may be shared at all.
func (s *sameness) appendKey(key []byte, r *http.Request) (_ []byte, ok bool) {
	if r.ContentLength != 0 || r.TLS != nil && len(r.TLS.PeerCertificates) > 0 && !s.certificate {
		return key, false
	}
	var few [16]field
	fields := few[:0]
	for name, values := range r.Header {
		switch name {
		case "Authorization":
			ok = s.authorization
		case "Cookie":
			ok = s.allCookies || s.namesCookieOf(r)
		case "Upgrade", "Proxy-Authorization", "Expect":
			ok = false
		case "Cache-Control", "Pragma":
			// Such a request wants an answer of its own.
			asked := cacheControl(values)
			ok = !asked.noStore && !asked.noCache
		case "Accept":
			fields = insertField(fields, name, values)
			ok = !slices.ContainsFunc(values, func(value string) bool { return strings.Contains(value, "text/event-stream") })
		default:
			if ok = true; !isIncidental(name) {
				fields = insertField(fields, name, values)
			}
		}
		if !ok {
			return key, false
		}
	}
	scheme := "http"
	if r.TLS != nil {
		scheme = "https"
	}
	for _, part := range [...]string{r.Method, scheme, r.Host, r.URL.Path, r.URL.RawPath, r.URL.RawQuery} {
		key = appendPart(key, part)
	}
	for i := range fields {
		key = appendPart(key, fields[i].name)
		for _, value := range fields[i].values {
			key = appendPart(key, value)
		}
		key = append(key, 0) // as many values as there are
	}
	return key, true
}

// insertField keeps fields in the order of their names.
func insertField(fields []field, name string, values []string) []field {
	fields = append(fields, field{})
	at := len(fields) - 1
	for ; at > 0 && fields[at-1].name > name; at-- {
		fields[at] = fields[at-1]
	}
	fields[at] = field{name, values}
	return fields
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

// isIncidental reports whether a field of a request is about the client's program,
// its connection or the request's way, and so differs between requests that ask for
// the same. All that is not known here counts: it may be a key to an API.
func isIncidental(name string) bool {
	switch name {
	case "User-Agent", "Connection", "Keep-Alive", "Proxy-Connection", "Dnt", "Sec-Gpc", "Priority", "Upgrade-Insecure-Requests",
		"X-Forwarded-For", "Forwarded", "Via", "X-Real-Ip",
		"X-Request-Id", "X-Correlation-Id", "Traceparent", "Tracestate", "B3":
		return true
	}
	return strings.HasPrefix(name, "Sec-Ch-Ua") || strings.HasPrefix(name, "X-B3-")
}
