package routing

import (
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/rgate/rgate/internal/query"
)

// IsAmbiguous reports whether a request matches another route if its path or query is
// parsed in another way that backends use. With such a request, a client could bypass
// the policies of a route or reach a hidden path.
//
// Other readings of a path resolve dot segments (RFC 3986, section 5.2.4), merge slashes,
// treat encoded slashes and backslashes as slashes, remove parameters after a semicolon,
// or decode twice. For queries, see query.Readings.
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

// hasReadings reports whether a path may have several readings. It is a cheap
// pre-check.
func hasReadings(u *url.URL) bool {
	return strings.Contains(u.Path, "//") || strings.Contains(u.Path, "/.") || strings.ContainsAny(u.Path, `\;%`) ||
		hasEncodedSlash(u.RawPath)
}

func hasEncodedSlash(raw string) bool {
	return strings.Contains(raw, "%2F") || strings.Contains(raw, "%2f")
}

// pathReadings returns the readings of a path before normalization. The first is the
// gateway's own reading.
func pathReadings(u *url.URL) []string {
	all := []string{u.Path}
	if hasEncodedSlash(u.RawPath) {
		// The reading in which encoded slashes remain encoded.
		kept := strings.NewReplacer("%2F", "%252F", "%2f", "%252f").Replace(u.RawPath)
		if path, err := url.PathUnescape(kept); err == nil {
			all = append(all, path)
		}
	}
	// Each function is applied to all previous readings.
	for _, read := range []func(string) string{decode, replaceBackslashes, removeParameters} {
		for _, path := range all {
			if other := read(path); !slices.Contains(all, other) {
				all = append(all, other)
			}
		}
	}
	return all
}

// normalizations are the path normalizations that backends use.
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
	return path // the path contains an invalid escape
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

// mergeSlashes replaces each sequence of slashes with a single slash.
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
	kept := segments[:1] // the empty string before the first slash
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
			kept = append(kept, "") // a dot segment at the end leaves a trailing slash
		}
	}
	return strings.Join(kept, "/")
}

// CleanPath merges slashes and removes dot segments.
func CleanPath(path string) string { return removeDotSegments(mergeSlashes(path)) }

// cleanLikePathClean removes dot segments. Unlike removeDotSegments, it leaves no trailing
// slash for a dot segment at the end, like path.Clean.
func cleanLikePathClean(path string) string {
	clean := removeDotSegments(path)
	if clean != "/" && (strings.HasSuffix(path, "/.") || strings.HasSuffix(path, "/..")) {
		clean = strings.TrimSuffix(clean, "/")
	}
	return clean
}

// escapes reports whether dot segments lead out of a parameter's value or of the part
// after the stripped prefix, to another path of the same route. Normalizing only the
// stripped path then yields another result than normalizing the whole path.
func (rt *Route) escapes(path string, normalize func(string) string) bool {
	if rt.Pattern == nil && !rt.StripPrefix {
		return false
	}
	fixed := rt.FixedLength(path)
	front, rest, slash := path[:fixed], path[fixed:], ""
	if !strings.HasPrefix(rest, "/") {
		slash = "/" // added when the prefix is stripped
	}
	left := front + strings.TrimPrefix(normalize(slash+rest), slash)
	return strings.TrimSuffix(left, "/") != strings.TrimSuffix(normalize(path), "/")
}

// FixedLength returns the length of the part of path that the prefix matches, or the
// pattern before its final wildcard. The slash after that part is excluded.
func (rt *Route) FixedLength(path string) int {
	switch {
	case rt.Pattern == nil:
		return len(strings.TrimSuffix(rt.Path, "/"))
	case rt.Pattern.HasRest():
		return rt.Pattern.fixedLength(path)
	}
	return len(path)
}
