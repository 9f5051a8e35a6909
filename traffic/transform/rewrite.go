package transform

import (
	"errors"
	"net/url"
	"strings"
)

var (
	// errPathValue is returned if a value changes the structure of the path.
	errPathValue = errors.New("a placeholder in path is empty or contains a slash or backslash")

	// errPathResult is returned if servers could interpret the path in different ways.
	errPathResult = errors.New("the rewritten path begins with two slashes, contains dot segments, or is not valid percent-encoding")
)

// escapeSegment encodes text as a path segment or a part of one. It returns an error if
// text is empty or contains slashes or backslashes.
func escapeSegment(text string) (string, error) {
	if text == "" || strings.ContainsAny(text, `/\`) {
		return "", errPathValue
	}
	return url.PathEscape(text), nil
}

// escapePath encodes text as a path or a part of one. Slashes are kept.
func escapePath(text string) string { return (&url.URL{Path: text}).EscapedPath() }

// parsePath decodes an encoded path. It returns an error if the path has dot segments in
// any interpretation, begins like an authority ("//"), or is not valid percent-encoding.
func parsePath(encoded string) (path, raw string, err error) {
	if !strings.HasPrefix(encoded, "/") {
		encoded = "/" + encoded
	}
	path, err = url.PathUnescape(encoded)
	if err != nil || strings.HasPrefix(path, "//") || strings.HasPrefix(path, `/\`) || hasDots(path) {
		return "", "", errPathResult
	}
	if (&url.URL{Path: path}).EscapedPath() != encoded {
		raw = encoded
	}
	return path, raw, nil
}

// hasDots reports whether a path has dot segments. It also detects them after repeated
// decoding, between backslashes and before path parameters (";").
func hasDots(path string) bool {
	for range 3 { // servers decode at most twice
		for segment := range strings.SplitSeq(strings.ReplaceAll(path, `\`, "/"), "/") {
			if name, _, _ := strings.Cut(segment, ";"); name == "." || name == ".." {
				return true
			}
		}
		decoded, err := url.PathUnescape(path)
		if err != nil || decoded == path {
			return false
		}
		path = decoded
	}
	return false
}

// takesPath reports whether the value of a placeholder is a path, in which slashes are
// kept.
func takesPath(placeholder string) bool {
	return placeholder == "http.rgate.param.*" ||
		strings.HasSuffix(placeholder, "uri.path") || strings.HasSuffix(placeholder, "uri.path.dir")
}
