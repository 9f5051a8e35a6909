package gateway

import (
	"net/http"
	"net/url"
	"path"
	"strings"
)

// misleading reports whether the request's path would lead elsewhere if it were
// read in another way, as the backend may do: with dot segments and repeated
// slashes resolved (RFC 3986, section 5.2.4), with encoded slashes as plain
// characters, or with backslashes as slashes. What a route keeps from its backend,
// or asks for before it lets a request through, could be gone around by that.
func (rt *router) misleading(r *http.Request, route *Route) bool {
	if !isPeculiar(r.URL) {
		return false
	}
	for _, reading := range readings(r.URL) {
		if reading == r.URL.Path {
			continue
		}
		if other, _ := rt.find(r, reading); other != route {
			return true
		}
	}
	return false
}

// isPeculiar is a cheap test for paths that can be read in several ways.
func isPeculiar(u *url.URL) bool {
	return strings.Contains(u.Path, "//") || strings.Contains(u.Path, "/.") || strings.Contains(u.Path, `\`) ||
		u.RawPath != "" && containsEncodedSlash(u.RawPath)
}

func containsEncodedSlash(raw string) bool {
	return strings.Contains(raw, "%2F") || strings.Contains(raw, "%2f")
}

// readings are the ways to read a path.
func readings(u *url.URL) []string {
	slashed := strings.ReplaceAll(u.Path, `\`, "/")
	all := []string{resolved(u.Path), slashed, resolved(slashed)}
	if containsEncodedSlash(u.RawPath) {
		// Encoded twice, they are still there after decoding once.
		kept := strings.NewReplacer("%2F", "%252F", "%2f", "%252f").Replace(u.RawPath)
		if decoded, err := url.PathUnescape(kept); err == nil {
			all = append(all, decoded, resolved(decoded))
		}
	}
	return all
}

// resolved is a path without dot segments and repeated slashes. A slash at its
// end stays.
func resolved(p string) string {
	clean := path.Clean("/" + p)
	if clean != "/" && (strings.HasSuffix(p, "/") || strings.HasSuffix(p, "/.") || strings.HasSuffix(p, "/..")) {
		clean += "/"
	}
	return clean
}
