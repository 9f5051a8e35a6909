package httpx

import (
	"bytes"
	"net/http"
	"regexp"
	"strings"
	"time"
)

// WantsRange reports whether a request is a GET for a byte range. Other range units are
// ignored.
func WantsRange(r *http.Request) bool {
	unit, _, ok := strings.Cut(r.Header.Get("Range"), "=")
	return ok && r.Method == http.MethodGet && strings.EqualFold(unit, "bytes")
}

// ServeRange responds to a range request (RFC 9110, section 14) from a complete body.
// The header of w must describe that body. Set evaluated if the caller has evaluated
// If-None-Match and If-Modified-Since, without a match.
func ServeRange(w http.ResponseWriter, r *http.Request, evaluated bool, modified time.Time, body []byte) {
	if header := w.Header(); header["Content-Type"] == nil {
		header["Content-Type"] = nil // prevents content sniffing by net/http
	}
	r = r.WithContext(r.Context())
	r.Header = r.Header.Clone()
	r.Header["Range"] = []string{boundedRange(r.Header.Get("Range"))}
	if evaluated {
		r.Header.Del("If-None-Match")
		r.Header.Del("If-Modified-Since")
	}
	http.ServeContent(w, r, "", modified, bytes.NewReader(body))
}

// maxPosition is larger than the length of any body.
const maxPosition = "9223372036854775807"

var rangeSpec = regexp.MustCompile(`^[ \t]*([0-9]*)[ \t]*-[ \t]*([0-9]*)[ \t]*$`)

// boundedRange rewrites a Range field for the cases in which net/http deviates from RFC
// 9110, section 14.1.2. Oversized numbers are capped, the last 0 bytes are
// unsatisfiable, and a sign is an error.
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
			first, last = maxPosition, ""
		}
		kept = append(kept, first+"-"+last)
	}
	return "bytes=" + strings.Join(kept, ",")
}

// boundedPosition caps a number at maxPosition.
func boundedPosition(digits string) string {
	if digits == "" {
		return ""
	}
	digits = strings.TrimLeft(digits, "0")
	switch {
	case digits == "":
		return "0"
	case len(digits) >= len(maxPosition):
		return maxPosition
	}
	return digits
}
