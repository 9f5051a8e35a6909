package transform

import (
	"errors"
	"net/url"
	"strings"
)

// errUnsafePath says that what a client sent would lead somewhere else than the
// template of a path means to.
var errUnsafePath = errors.New("the path that the template makes can be read in several ways")

// escapeSegment makes a text one segment of a path, or a part of one.
func escapeSegment(text string) (string, error) {
	if text == "" || strings.ContainsAny(text, `/\`) {
		return "", errUnsafePath
	}
	return url.PathEscape(text), nil
}

// escapePath makes a text a path, or a part of one.
func escapePath(text string) string { return (&url.URL{Path: text}).EscapedPath() }

// parsePath decodes an encoded path. It returns an error if the path has dot segments
// in one way of reading it, or begins like a host does.
func parsePath(encoded string) (path, raw string, err error) {
	if !strings.HasPrefix(encoded, "/") {
		encoded = "/" + encoded
	}
	path, err = url.PathUnescape(encoded)
	if err != nil || strings.HasPrefix(path, "//") || strings.HasPrefix(path, `/\`) || hasDots(path) {
		return "", "", errUnsafePath
	}
	if (&url.URL{Path: path}).EscapedPath() != encoded {
		raw = encoded
	}
	return path, raw, nil
}

// hasDots reports whether a path has segments that mean the one above or nothing,
// also if it is decoded again, has backslashes for slashes, or parameters after a
// semicolon.
func hasDots(path string) bool {
	for range 3 { // few servers decode twice, none more often
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

// takesPath reports whether a placeholder stands for a path, slashes and all.
func takesPath(placeholder string) bool {
	return placeholder == "http.rgate.param.*" ||
		strings.HasSuffix(placeholder, "uri.path") || strings.HasSuffix(placeholder, "uri.path.dir")
}
