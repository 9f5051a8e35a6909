package routing

import (
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/rgate/rgate/internal/query"
)

// IsAmbiguous reports whether the request would lead elsewhere if its path or query
// were read in another way, as the backend may do. For paths these are: with dot
// segments resolved (RFC 3986, section 5.2.4) or slashes merged, with encoded slashes
// as plain characters, with backslashes as slashes, without parameters after a
// semicolon, or decoded once more. For queries see query.Readings. What a route keeps
// from its backend, or asks for before it lets a request through, could be gone around
// by that.
func (rt *Router) IsAmbiguous(r *http.Request, route *Route) bool {
	readings := []url.Values{nil}
	if rt.queries {
		if several := query.Readings(r.URL.RawQuery); several != nil {
			readings = several
		}
	}
	leadsElsewhere := func(path string) bool {
		return slices.ContainsFunc(readings, func(params url.Values) bool {
			s := rt.search(r, path, params)
			return s.found != route
		})
	}
	if !isPeculiar(r.URL) {
		return len(readings) > 1 && leadsElsewhere(r.URL.Path)
	}
	for _, spelling := range spellings(r.URL) {
		if leadsElsewhere(spelling) {
			return true
		}
		for _, reshape := range shapes {
			shape := reshape(spelling)
			if shape != spelling && (leadsElsewhere(shape) || route.climbs(spelling, reshape)) {
				return true
			}
		}
	}
	return false
}

// isPeculiar is a cheap test for paths that can be read in several ways.
func isPeculiar(u *url.URL) bool {
	return strings.Contains(u.Path, "//") || strings.Contains(u.Path, "/.") || strings.ContainsAny(u.Path, `\;%`) ||
		hasEncodedSlash(u.RawPath)
}

func hasEncodedSlash(raw string) bool {
	return strings.Contains(raw, "%2F") || strings.Contains(raw, "%2f")
}

// spellings are the ways to read a path letter by letter. The first is its own.
func spellings(u *url.URL) []string {
	all := []string{u.Path}
	if hasEncodedSlash(u.RawPath) {
		// Encoded twice, they are still there after decoding once.
		kept := strings.NewReplacer("%2F", "%252F", "%2f", "%252f").Replace(u.RawPath)
		if path, err := url.PathUnescape(kept); err == nil {
			all = append(all, path)
		}
	}
	// Those below add to the ones before what becomes of each.
	for _, read := range []func(string) string{decoded, slashed, withoutParameters} {
		for _, path := range all {
			if other := read(path); !slices.Contains(all, other) {
				all = append(all, other)
			}
		}
	}
	return all
}

// shapes are the ways to read a path segment by segment.
var shapes = []func(string) string{
	merged,
	removeDotSegments,
	CleanPath,
	withoutLastDots,
	func(path string) string { return withoutLastDots(merged(path)) },
}

func decoded(path string) string {
	if twice, err := url.PathUnescape(path); err == nil {
		return twice
	}
	return path // it has a plain %
}

func slashed(path string) string { return strings.ReplaceAll(path, `\`, "/") }

func withoutParameters(path string) string {
	if !strings.Contains(path, ";") {
		return path
	}
	segments := strings.Split(path, "/")
	for i, segment := range segments {
		segments[i], _, _ = strings.Cut(segment, ";")
	}
	return strings.Join(segments, "/")
}

// merged is a path with single slashes.
func merged(path string) string {
	for strings.Contains(path, "//") {
		path = strings.ReplaceAll(path, "//", "/")
	}
	return path
}

// removeDotSegments is a path in which the segments . and .. have done what they say.
func removeDotSegments(path string) string {
	if !strings.Contains(path, "/.") {
		return path
	}
	segments := strings.Split(path, "/")
	kept := segments[:1] // before the first slash
	for i, segment := range segments[1:] {
		switch segment {
		case "..":
			kept = kept[:max(1, len(kept)-1)]
		case ".":
		default:
			kept = append(kept, segment)
			continue
		}
		if i == len(segments)-2 {
			kept = append(kept, "") // what it leads to is a folder
		}
	}
	return strings.Join(kept, "/")
}

// CleanPath returns a path with single slashes and without dot segments.
func CleanPath(path string) string { return removeDotSegments(merged(path)) }

// withoutLastDots is a path in which dot segments have done what they say, and the
// last one has left no slash, in the way of path.Clean.
func withoutLastDots(path string) string {
	clean := removeDotSegments(path)
	if clean != "/" && (strings.HasSuffix(path, "/.") || strings.HasSuffix(path, "/..")) {
		clean = strings.TrimSuffix(clean, "/")
	}
	return clean
}

// climbs reports whether a path climbs out of what the route's parameters stand
// for, or of what is stripped from it, on its way to another path of the same
// route: in that shape, what is left for the backend is not what it gets.
func (rt *Route) climbs(path string, reshape func(string) string) bool {
	if rt.Pattern == nil && !rt.StripPrefix {
		return false
	}
	fixed := rt.FixedLength(path)
	front, rest, slash := path[:fixed], path[fixed:], ""
	if !strings.HasPrefix(rest, "/") {
		slash = "/" // which it gets when the front is stripped
	}
	left := front + strings.TrimPrefix(reshape(slash+rest), slash)
	return strings.TrimSuffix(left, "/") != strings.TrimSuffix(reshape(path), "/")
}

// FixedLength returns how much of a path that the route takes comes before the
// open end of its prefix or pattern.
func (rt *Route) FixedLength(path string) int {
	switch {
	case rt.Pattern == nil:
		return len(strings.TrimSuffix(rt.Path, "/"))
	case rt.Pattern.HasRest():
		return rt.Pattern.fixed(path)
	}
	return len(path)
}
