package routing

import (
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/rgate/rgate/internal/query"
)

// IsAmbiguous reports whether a request would match another route if its path or query were
// read in another way, as the backend may do: the client could bypass what the route
// requires, or reach what the route hides.
//
// Paths are also read with dot segments resolved (RFC 3986, section 5.2.4) or slashes
// merged, with encoded slashes or backslashes as slashes, without parameters after a
// semicolon, and decoded twice. For queries, see query.Readings.
func (rt *Router) IsAmbiguous(r *http.Request, route *Route) bool {
	readings := []url.Values{nil}
	if rt.queries {
		if several := query.Readings(r.URL.RawQuery); several != nil {
			readings = several
		}
	}
	differs := func(path string) bool {
		return slices.ContainsFunc(readings, func(params url.Values) bool {
			s := rt.search(r, path, params)
			return s.found != route
		})
	}
	if !hasReadings(r.URL) {
		return len(readings) > 1 && differs(r.URL.Path)
	}
	for _, reading := range pathReadings(r.URL) {
		if differs(reading) {
			return true
		}
		for _, normalize := range normalizations {
			normalized := normalize(reading)
			if normalized != reading && (differs(normalized) || route.escapes(reading, normalize)) {
				return true
			}
		}
	}
	return false
}

// hasReadings is a cheap test for paths that can be read in several ways.
func hasReadings(u *url.URL) bool {
	return strings.Contains(u.Path, "//") || strings.Contains(u.Path, "/.") || strings.ContainsAny(u.Path, `\;%`) ||
		hasEncodedSlash(u.RawPath)
}

func hasEncodedSlash(raw string) bool {
	return strings.Contains(raw, "%2F") || strings.Contains(raw, "%2f")
}

// pathReadings returns the readings of a path that differ in single characters. The first
// is the gateway's own.
func pathReadings(u *url.URL) []string {
	all := []string{u.Path}
	if hasEncodedSlash(u.RawPath) {
		// A reading in which encoded slashes remain encoded.
		kept := strings.NewReplacer("%2F", "%252F", "%2f", "%252f").Replace(u.RawPath)
		if path, err := url.PathUnescape(kept); err == nil {
			all = append(all, path)
		}
	}
	// Each function is applied to all readings before it.
	for _, read := range []func(string) string{decode, replaceBackslashes, removeParameters} {
		for _, path := range all {
			if other := read(path); !slices.Contains(all, other) {
				all = append(all, other)
			}
		}
	}
	return all
}

// normalizations are the ways in which backends normalize the segments of a path.
var normalizations = []func(string) string{
	mergeSlashes,
	removeDotSegments,
	CleanPath,
	cleanLikePathClean,
	func(path string) string { return cleanLikePathClean(mergeSlashes(path)) },
}

func decode(path string) string {
	if twice, err := url.PathUnescape(path); err == nil {
		return twice
	}
	return path // its % is not an escape
}

func replaceBackslashes(path string) string { return strings.ReplaceAll(path, `\`, "/") }

func removeParameters(path string) string {
	if !strings.Contains(path, ";") {
		return path
	}
	segments := strings.Split(path, "/")
	for i, segment := range segments {
		segments[i], _, _ = strings.Cut(segment, ";")
	}
	return strings.Join(segments, "/")
}

// mergeSlashes replaces each sequence of slashes with one.
func mergeSlashes(path string) string {
	for strings.Contains(path, "//") {
		path = strings.ReplaceAll(path, "//", "/")
	}
	return path
}

// removeDotSegments resolves dot segments (RFC 3986, section 5.2.4).
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
			kept = append(kept, "") // a dot segment at the end is a folder
		}
	}
	return strings.Join(kept, "/")
}

// CleanPath returns a path with single slashes and without dot segments.
func CleanPath(path string) string { return removeDotSegments(mergeSlashes(path)) }

// cleanLikePathClean removes dot segments as package path does: without a slash after the
// last one.
func cleanLikePathClean(path string) string {
	clean := removeDotSegments(path)
	if clean != "/" && (strings.HasSuffix(path, "/.") || strings.HasSuffix(path, "/..")) {
		clean = strings.TrimSuffix(clean, "/")
	}
	return clean
}

// escapes reports whether dot segments of a path leave the values of the route's parameters
// or the part after the stripped prefix, and lead to another path of the same route. Then
// the backend would not get what a normalization of the whole path yields.
func (rt *Route) escapes(path string, normalize func(string) string) bool {
	if rt.Pattern == nil && !rt.StripPrefix {
		return false
	}
	fixed := rt.FixedLength(path)
	front, rest, slash := path[:fixed], path[fixed:], ""
	if !strings.HasPrefix(rest, "/") {
		slash = "/" // which is added when the prefix is stripped
	}
	left := front + strings.TrimPrefix(normalize(slash+rest), slash)
	return strings.TrimSuffix(left, "/") != strings.TrimSuffix(normalize(path), "/")
}

// FixedLength returns the length of the prefix, or of the part before the wildcard at the
// end of the pattern, in a path that the route matches. It does not include the slash after it.
func (rt *Route) FixedLength(path string) int {
	switch {
	case rt.Pattern == nil:
		return len(strings.TrimSuffix(rt.Path, "/"))
	case rt.Pattern.HasRest():
		return rt.Pattern.fixedLength(path)
	}
	return len(path)
}
