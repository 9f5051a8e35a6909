package traffic

import (
	"bytes"
	"net/http"
	"regexp"
	"strings"
	"time"
)

// wantsPart reports whether a request asks for a part of what it asks for. Parts that are
// not counted in bytes are none.
func wantsPart(r *http.Request) bool {
	unit, _, ok := strings.Cut(r.Header.Get("Range"), "=")
	return ok && r.Method == http.MethodGet && strings.EqualFold(unit, "bytes")
}

// serveRange answers a request for a part of a body that is there as a whole (RFC 9110,
// section 14), given what its header says. judged tells that what the client has already
// was looked at, and found to be another answer.
func serveRange(w http.ResponseWriter, r *http.Request, judged bool, modified time.Time, body []byte) {
	if header := w.Header(); header["Content-Type"] == nil {
		header["Content-Type"] = nil // there is none to be guessed
	}
	r = r.WithContext(r.Context())
	r.Header = r.Header.Clone()
	r.Header["Range"] = []string{boundedRange(r.Header.Get("Range"))}
	if judged {
		r.Header.Del("If-None-Match")
		r.Header.Del("If-Modified-Since")
	}
	http.ServeContent(w, r, "", modified, bytes.NewReader(body))
}

// beyond is a position that no body has.
const beyond = "9223372036854775807"

var rangeSpec = regexp.MustCompile(`^[ \t]*([0-9]*)[ \t]*-[ \t]*([0-9]*)[ \t]*$`)

// boundedRange returns a Range field without what package net/http reads otherwise than
// RFC 9110, section 14.1.2: a number that is too large for it is as good as the largest
// one, the last 0 bytes cannot be satisfied, and a sign is an error.
func boundedRange(field string) string {
	_, list, _ := strings.Cut(field, "=")
	var kept []string
	for spec := range strings.SplitSeq(list, ",") {
		if strings.Trim(spec, " \t") == "" {
			continue
		}
		parts := rangeSpec.FindStringSubmatch(spec)
		if parts == nil {
			return "bytes=invalid"
		}
		first, last := boundedPosition(parts[1]), boundedPosition(parts[2])
		if first == "" && last == "0" {
			first, last = beyond, ""
		}
		kept = append(kept, first+"-"+last)
	}
	return "bytes=" + strings.Join(kept, ",")
}

// boundedPosition returns digits as a number that is not too large.
func boundedPosition(digits string) string {
	if digits == "" {
		return ""
	}
	digits = strings.TrimLeft(digits, "0")
	switch {
	case digits == "":
		return "0"
	case len(digits) >= len(beyond):
		return beyond
	}
	return digits
}
