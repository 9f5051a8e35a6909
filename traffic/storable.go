package traffic

import (
	"net/http"
	"strings"
	"time"
)

// directives are what a Cache-Control field says, as far as it matters to a shared
// cache (RFC 9111, section 5.2).
type directives struct {
	noStore, noCache, private, public bool
	mustRevalidate                    bool          // or proxy-revalidate, or s-maxage
	maxAge                            time.Duration // s-maxage, else max-age; negative: neither is there
}

// cacheControl reads the values of a Cache-Control field. What cannot be understood
// is taken for what allows the least.
func cacheControl(values []string) directives {
	d := directives{maxAge: -1}
	shared := false
	for _, value := range values {
		for value != "" {
			var name, argument string
			name, argument, value = nextDirective(value)
			switch {
			case strings.EqualFold(name, "no-store"):
				d.noStore = true
			case strings.EqualFold(name, "no-cache"):
				d.noCache = true
			case strings.EqualFold(name, "private"):
				d.private = true
			case strings.EqualFold(name, "public"):
				d.public = true
			case strings.EqualFold(name, "must-revalidate"), strings.EqualFold(name, "proxy-revalidate"):
				d.mustRevalidate = true
			case strings.EqualFold(name, "s-maxage"):
				d.mustRevalidate = true
				if age := seconds(argument); !shared || age < d.maxAge {
					d.maxAge = age
				}
				shared = true
			case strings.EqualFold(name, "max-age") && !shared:
				if age := seconds(argument); d.maxAge < 0 || age < d.maxAge {
					d.maxAge = age
				}
			}
		}
	}
	return d
}

// nextDirective takes the first directive off a list.
func nextDirective(list string) (name, argument, rest string) {
	end, quoted := len(list), false
	for i := 0; i < len(list); i++ {
		switch c := list[i]; {
		case c == '"':
			quoted = !quoted
		case c == '\\' && quoted:
			i++
		case c == ',' && !quoted:
			end, rest = i, list[i+1:]
			i = len(list)
		}
	}
	name, argument, _ = strings.Cut(list[:end], "=")
	return strings.TrimSpace(name), strings.Trim(strings.TrimSpace(argument), `"`), rest
}

const longest = 1 << 31 // seconds; more than that is as good

// seconds reads a number of seconds. What is none is 0.
func seconds(text string) time.Duration {
	if text == "" {
		return 0
	}
	n := int64(0)
	for i := range len(text) {
		if text[i] < '0' || text[i] > '9' {
			return 0
		}
		n = min(n*10+int64(text[i]-'0'), longest)
	}
	return time.Duration(n) * time.Second
}

// forEveryone reports whether an answer may be given to others than the one who
// asked for it, if their requests do not differ.
func forEveryone(header http.Header, d directives) bool {
	return !d.noStore && !d.private && len(header["Set-Cookie"]) == 0 && len(header["Set-Cookie2"]) == 0 &&
		!strings.Contains(strings.Join(header["Vary"], ","), "*")
}

// endless reports whether the body of an answer is a stream of events, which ends
// when somebody leaves.
func endless(header http.Header) bool {
	for _, value := range header["Content-Type"] {
		kind, _, _ := strings.Cut(value, ";")
		kind = strings.TrimSpace(kind)
		if strings.EqualFold(kind, "text/event-stream") || strings.EqualFold(kind, "multipart/x-mixed-replace") {
			return true
		}
	}
	return false
}

// shareable reports whether an answer may go to several clients who asked for it at
// the same time. Beside what may be stored without a word about how long, these are
// the errors of a server: to ask it again and again would not help it.
func shareable(status int, header http.Header) bool {
	d := cacheControl(header["Cache-Control"])
	if d.noCache || !forEveryone(header, d) || endless(header) || len(header["Trailer"]) > 0 {
		return false
	}
	switch status {
	case http.StatusOK, http.StatusNonAuthoritativeInfo, http.StatusNoContent, http.StatusPartialContent,
		http.StatusMultipleChoices, http.StatusMovedPermanently, http.StatusPermanentRedirect, http.StatusNotModified,
		http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusGone, http.StatusRequestURITooLong:
		return true
	case http.StatusUnauthorized, http.StatusProxyAuthRequired, http.StatusRequestTimeout,
		http.StatusMisdirectedRequest, http.StatusTooEarly, http.StatusTooManyRequests:
		return false // about one client, or its connection
	}
	return status >= 500 || status >= 200 && (d.public || d.maxAge >= 0 || len(header["Expires"]) > 0)
}

// varied are the fields of a request that its answer depends on, as the answer's
// Vary field says.
type varied []field

// field is a header field.
type field struct {
	name   string
	values []string
}

// variedBy takes from a request what an answer to it depends on.
func variedBy(request, answer http.Header) (fields varied) {
	for _, list := range answer["Vary"] {
		for name := range strings.SplitSeq(list, ",") {
			if name = http.CanonicalHeaderKey(strings.TrimSpace(name)); name != "" {
				fields = append(fields, field{name, append([]string(nil), request[name]...)})
			}
		}
	}
	return fields
}

// match reports whether another request has the same in these fields.
func (v varied) match(request http.Header) bool {
	for _, f := range v {
		// Several lines are one list (RFC 9110, section 5.3).
		if strings.Join(f.values, ",") != strings.Join(request[f.name], ",") {
			return false
		}
	}
	return true
}
