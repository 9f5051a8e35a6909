package transform

import (
	"mime"
	"net/http"
	"slices"
	"strings"
)

// bodyKind is what the Content-Type of a message says about its body.
type bodyKind uint8

const (
	otherBody   bodyKind = iota
	jsonBody             // one JSON value
	streamBody           // JSON that comes value by value
	unknownBody          // nothing, or nothing that can be read: the body itself says more
)

// bodyKindOf returns what the Content-Type of a message says about its body, and whether it is
// clear: one media type as in RFC 9110, section 8.3.1. Receivers read others in different
// ways, so whatever has JSON in its name is JSON. Of several types, some believe the first
// and others the last.
func bodyKindOf(header http.Header) (kind bodyKind, clear bool) {
	types, clear := mediaTypes(header)
	for _, media := range types {
		switch {
		case isJSONStream(media):
			kind = streamBody
		case strings.Contains(media, "json"):
			return jsonBody, clear
		}
	}
	if kind == otherBody && !clear {
		kind = unknownBody
	}
	return kind, clear
}

// streamNames are parts of the names of media types whose bodies have JSON in them that
// comes value by value.
var streamNames = []string{"ndjson", "ldjson", "jsonl", "json-lines", "json-seq", "jsonstream", "json-stream", "stream+json"}

// isJSONStream reports whether bodies of a media type have JSON in them that comes value
// by value.
func isJSONStream(media string) bool {
	return media == "text/event-stream" || slices.ContainsFunc(streamNames, func(name string) bool { return strings.Contains(media, name) })
}

// mediaTypes returns the media types of a message in lower case, and whether it is clear
// that it has this one. If it is not, they are all that could be one.
func mediaTypes(header http.Header) (types []string, clear bool) {
	fields := header["Content-Type"]
	if len(fields) == 1 && isPlainType(fields[0]) { // the usual case, without garbage
		return fields, true
	}
	if len(fields) == 1 && !strings.Contains(fields[0], ",") {
		media, _, err := mime.ParseMediaType(fields[0])
		if err == nil && strings.Contains(media, "/") && !strings.Contains(media, "*") {
			return []string{media}, true
		}
	}
	for _, field := range fields {
		types = append(types, strings.FieldsFunc(strings.ToLower(field), func(c rune) bool {
			return c <= ' ' || strings.ContainsRune(`,;="'()<>`, c)
		})...)
	}
	return types, false
}

// isPlainType reports whether a text is a media type in lower case without parameters.
func isPlainType(text string) bool {
	main, sub, _ := strings.Cut(text, "/")
	for _, part := range [...]string{main, sub} {
		if part == "" || strings.Trim(part, "abcdefghijklmnopqrstuvwxyz0123456789.+-") != "" {
			return false
		}
	}
	return true
}

// beforeJSON is what a JSON text in any encoding, or a sequence of such texts, may have
// before its first character: white space, byte order marks, the zeros of wider encodings.
const beforeJSON = " \t\r\n\x00\x1e\xef\xbb\xbf\xfe\xff"

// mayBeJSON reports whether a body that begins with these bytes may be a JSON object or
// array, and whether they are enough to know.
func mayBeJSON(begin []byte) (may, known bool) {
	rest := begin
	for len(rest) > 0 && strings.IndexByte(beforeJSON, rest[0]) >= 0 {
		rest = rest[1:]
	}
	if len(rest) == 0 {
		return len(begin) >= maxLead, len(begin) >= maxLead
	}
	return rest[0] == '{' || rest[0] == '[', true
}

// maxLead is how many bytes a body may begin with that say nothing about it.
const maxLead = 512
