package cors

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// origins holds the allowed origins. Browsers serialize origins as in RFC 6454, section
// 6.2: in lower case, without a default port and without a path. Only this form matches.
type origins struct {
	any       bool
	exact     map[string]struct{}
	wildcards []wildcardOrigin
	patterns  []*regexp.Regexp
}

// wildcardOrigin is an origin pattern that matches all subdomains of a domain.
type wildcardOrigin struct {
	scheme string // including `://`
	domain string // including the leading dot, and the port if any
}

// parseOrigins parses a list of origins. An element is an exact origin, a wildcard such
// as https://*.example.com, a regular expression after a tilde, null, or * as the only
// element. If an element is invalid, parseOrigins also returns its index.
func parseOrigins(list []string) (*origins, int, error) {
	o := &origins{exact: make(map[string]struct{}, len(list))}
	for i, text := range list {
		switch {
		case text == "*":
			if len(list) > 1 {
				return nil, i, errors.New("* and other origins cannot be combined: remove * or the others")
			}
			o.any = true
		case text == "null":
			o.exact[text] = struct{}{}
		case strings.HasPrefix(text, "~"):
			pattern, err := parseOriginPattern(text[1:])
			if err != nil {
				return nil, i, err
			}
			o.patterns = append(o.patterns, pattern)
		default:
			origin, err := normalOrigin(text)
			if err != nil {
				return nil, i, err
			}
			if scheme, domain, ok := strings.Cut(origin, "*"); ok {
				o.wildcards = append(o.wildcards, wildcardOrigin{scheme, domain})
			} else {
				o.exact[origin] = struct{}{}
			}
		}
	}
	return o, 0, nil
}

// parseOriginPattern compiles a regular expression and anchors it at both ends.
func parseOriginPattern(text string) (*regexp.Regexp, error) {
	if text == "" {
		return nil, errors.New(`invalid origin "~": must be followed by a regular expression, such as ~^https://[a-z]+\.example\.com$`)
	}
	if _, err := regexp.Compile(text); err != nil {
		return nil, fmt.Errorf(`invalid regular expression "~%s": %w: see https://golang.org/s/re2syntax`, text, err)
	}
	return regexp.Compile(`\A(?:` + text + `)\z`)
}

// normalOrigin validates an origin and returns it as browsers serialize it. The host can
// begin with a wildcard for subdomains.
func normalOrigin(text string) (string, error) {
	origin := strings.ToLower(text)
	scheme, authority, ok := strings.Cut(origin, "://")
	if !ok || !isScheme(scheme) {
		return "", fmt.Errorf(`invalid origin %q: must have a scheme, such as https://app.example.com`, text)
	}
	if i := strings.IndexAny(authority, "/?#"); i >= 0 {
		return "", fmt.Errorf(`invalid origin %q: must consist of scheme, host and port: use %q`, text, scheme+"://"+authority[:i])
	}
	host, port := splitPort(authority)
	if scheme == "http" && port == ":80" || scheme == "https" && port == ":443" {
		port = "" // browsers omit the default port
	}
	domain, wildcard := strings.CutPrefix(host, "*.")
	switch {
	case strings.Contains(domain, "*"):
		return "", fmt.Errorf(`invalid origin %q: a wildcard must be the first label, as in https://*.example.com: use a regular expression after ~ for other patterns`, text)
	case !isHost(domain) || !isPort(port):
		return "", fmt.Errorf(`invalid origin %q: must be an origin such as https://app.example.com or http://localhost:8080, with international domain names in Punycode`, text)
	case wildcard && domain != "localhost" && !strings.Contains(domain, "."):
		return "", fmt.Errorf(`invalid origin %q: must not match a whole top-level domain: use your domain, as in https://*.example.com`, text)
	}
	return scheme + "://" + host + port, nil
}

// splitPort splits an authority into the host and the port. The port includes the colon.
func splitPort(authority string) (host, port string) {
	if i := strings.LastIndexByte(authority, ':'); i > strings.LastIndexByte(authority, ']') {
		return authority[:i], authority[i:]
	}
	return authority, ""
}

func isScheme(s string) bool {
	for i, c := range []byte(s) {
		switch {
		case 'a' <= c && c <= 'z':
		case i > 0 && ('0' <= c && c <= '9' || c == '+' || c == '-' || c == '.'):
		default:
			return false
		}
	}
	return s != ""
}

func isPort(s string) bool {
	digits, ok := strings.CutPrefix(s, ":")
	if !ok {
		return s == ""
	}
	_, err := strconv.ParseUint(digits, 10, 16)
	return err == nil && digits[0] != '0'
}

// isHost reports whether s is an IPv6 address in brackets or a domain name.
func isHost(s string) bool {
	if inner, ok := strings.CutPrefix(s, "["); ok {
		inner, ok = strings.CutSuffix(inner, "]")
		return ok && strings.Contains(inner, ":") && strings.Trim(inner, "0123456789abcdef:.") == ""
	}
	return areLabels(s)
}

// areLabels reports whether s consists of DNS labels separated by dots.
func areLabels(s string) bool {
	dot := true // the previous character is a dot or the start
	for _, c := range []byte(s) {
		switch {
		case c == '.' && dot:
			return false
		case 'a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '-' || c == '_' || c == '.':
		default:
			return false
		}
		dot = c == '.'
	}
	return !dot
}

// allow reports whether an origin is allowed.
func (o *origins) allow(origin string) bool {
	if o.any {
		return true
	}
	if _, ok := o.exact[origin]; ok {
		return true
	}
	for _, w := range o.wildcards {
		if rest, ok := strings.CutPrefix(origin, w.scheme); ok {
			if subdomains, ok := strings.CutSuffix(rest, w.domain); ok && areLabels(subdomains) {
				return true
			}
		}
	}
	for _, pattern := range o.patterns {
		if pattern.MatchString(origin) {
			return true
		}
	}
	return false
}

// unlikelyOrigin is an origin that only patterns without restrictions match.
const unlikelyOrigin = "https://xn--q7-0fa.rgate-probe.invalid:4242"

// unbounded reports whether any page can obtain an allowed origin. This includes null,
// because any page can create a sandboxed frame.
func (o *origins) unbounded() bool { return o.allow(unlikelyOrigin) || o.allow("null") }
