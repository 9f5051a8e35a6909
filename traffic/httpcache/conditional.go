package httpcache

import (
	"net/http"
	"strings"
	"time"
)

// NotModified reports whether a conditional request is satisfied by 304 (RFC 9111,
// section 4.3.2). request is the header of the request; the other parameters describe the
// stored response. If lastModified is zero, date is compared instead.
func NotModified(request http.Header, etag string, lastModified, date time.Time) bool {
	if lines, ok := request["If-None-Match"]; ok {
		return etagListed(lines, etag)
	}
	since, err := http.ParseTime(request.Get("If-Modified-Since"))
	if err != nil {
		return false
	}
	if lastModified.IsZero() {
		lastModified = date
	}
	return !lastModified.After(since)
}

// etagListed reports whether a list of entity tags contains etag, using weak comparison
// (RFC 9110, section 8.8.3.2).
func etagListed(lines []string, etag string) bool {
	for _, line := range lines {
		for line = strings.Trim(line, " \t,"); line != ""; line = strings.TrimLeft(line, " \t,") {
			if line[0] == '*' {
				return true
			}
			var tag string
			if tag, line = nextETag(line); tag == "" {
				break // the rest is malformed
			}
			if etag != "" && tag == opaque(etag) {
				return true
			}
		}
	}
	return false
}

// nextETag splits the first entity tag from a list. The tag has no weak prefix.
func nextETag(list string) (tag, rest string) {
	list = strings.TrimPrefix(list, "W/")
	if !strings.HasPrefix(list, `"`) {
		return "", list
	}
	end := strings.IndexByte(list[1:], '"')
	if end < 0 {
		return "", list
	}
	return list[:end+2], list[end+2:]
}

// opaque returns an entity tag without its weak prefix.
func opaque(etag string) string { return strings.TrimPrefix(etag, "W/") }

// SameETag reports whether two entity tags match, using weak comparison.
func SameETag(a, b string) bool { return a != "" && opaque(a) == opaque(b) }
