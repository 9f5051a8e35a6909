package transform

import (
	"mime"
	"net/http"
	"slices"
	"strings"
)

// bodyKind is the kind of body that a Content-Type announces.
type bodyKind uint8

const (
	otherBody   bodyKind = iota
	jsonBody             // a single JSON value
	streamBody           // a stream of JSON values
	unknownBody          // no valid Content-Type: examine the body
)

// bodyKindOf returns the kind of body according to the Content-Type. clear reports
// whether the Content-Type is a single valid media type (RFC 9110, section 8.3.1).
// Otherwise receivers interpret it in different ways, so each possible media type is
// considered. A media type whose name contains "json" is JSON, unless it denotes a stream.
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

// streamNames lists the parts of media type names that denote a stream of JSON values,
// such as ndjson in application/x-ndjson.
var streamNames = []string{"ndjson", "ldjson", "jsonl", "jsonlines", "json-lines", "json-seq", "jsonstream", "json-stream"}

// isJSONStream reports whether a media type denotes a stream of JSON values. Only whole
// parts count: application/vnd.acme.livestream+json is a single value.
func isJSONStream(media string) bool {
	if media == "text/event-stream" || media == "application/stream+json" {
		return true
	}
	for part := range strings.FieldsFuncSeq(media, func(c rune) bool { return strings.ContainsRune("/.+", c) }) {
		if slices.Contains(streamNames, strings.TrimPrefix(part, "x-")) {
			return true
		}
	}
	return false
}

// mediaTypes returns the media type of a message in lower case and true. If the
// Content-Type is missing or ambiguous, it returns all candidates and false.
func mediaTypes(header http.Header) (types []string, clear bool) {
	fields := header["Content-Type"]
	if len(fields) == 1 && isPlainType(fields[0]) { // common case, without allocation
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

// isPlainType reports whether text is a lower-case media type without parameters.
func isPlainType(text string) bool {
	main, sub, _ := strings.Cut(text, "/")
	for _, part := range [...]string{main, sub} {
		if part == "" || strings.Trim(part, "abcdefghijklmnopqrstuvwxyz0123456789.+-") != "" {
			return false
		}
	}
	return true
}

// beforeJSON lists the bytes that may precede the first character of JSON in any
// encoding: white space, record separators, byte order marks and the zero bytes of UTF-16
// and UTF-32.
const beforeJSON = " \t\r\n\x00\x1e\xef\xbb\xbf\xfe\xff"

// mayBeJSON reports whether a body that begins with these bytes may be a JSON object or
// array. known is false if more bytes are required.
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

// maxLead is the number of leading bytes in beforeJSON from which on a body is treated as
// JSON.
const maxLead = 512
