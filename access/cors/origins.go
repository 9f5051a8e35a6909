package cors

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// origins are the origins that may read responses. Browsers send theirs as in RFC 6454,
// section 6.2: in lower case, without a default port and without a path. Only this form is
// matched.
type origins struct {
	any       bool
	exact     map[string]struct{}
	wildcards []wildcardOrigin
	patterns  []*regexp.Regexp
}

// wildcardOrigin matches all subdomains of a domain.
type wildcardOrigin struct {
	scheme string // with `://`
	domain string // with the dot before it, and the port after it
}

// parseOrigins parses a list of origins: exact ones such as https://app.example.com,
// https://*.example.com for all subdomains, a regular expression after a tilde, null, and *
// alone. With an error, it returns the index of the invalid one.
func parseOrigins(list []string) (*origins, int, error) {
	o := &origins{exact: make(map[string]struct{}, len(list))}
	for i, text := range list {
		switch {
		case text == "*":
			if len(list) > 1 {
				return nil, i, errors.New("* allows every origin, so that the others mean nothing: use either * or the others")
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

// parseOriginPattern compiles a regular expression that must match the whole origin.
func parseOriginPattern(text string) (*regexp.Regexp, error) {
	if text == "" {
		return nil, errors.New(`"~" has no regular expression: use one such as ~^https://[a-z]+\.example\.com$`)
	}
	if _, err := regexp.Compile(text); err != nil {
		return nil, fmt.Errorf(`"~%s" is not a regular expression (%w): see https://golang.org/s/re2syntax`, text, err)
	}
	return regexp.Compile(`\A(?:` + text + `)\z`)
}

// normalOrigin validates an origin, which can have a wildcard for its subdomains, and
// returns the form that browsers send.
func normalOrigin(text string) (string, error) {
	origin := strings.ToLower(text)
	scheme, authority, ok := strings.Cut(origin, "://")
	if !ok || !isScheme(scheme) {
		return "", fmt.Errorf(`%q is not an origin: use one such as https://app.example.com, with its scheme`, text)
	}
	if i := strings.IndexAny(authority, "/?#"); i >= 0 {
		return "", fmt.Errorf(`%q has more to it than an origin: use %q`, text, scheme+"://"+authority[:i])
	}
	host, port := splitPort(authority)
	if scheme == "http" && port == ":80" || scheme == "https" && port == ":443" {
		port = "" // browsers leave it out
	}
	domain, wildcard := strings.CutPrefix(host, "*.")
	switch {
	case strings.Contains(domain, "*"):
		return "", fmt.Errorf(`%q has a wildcard in the wrong place: use it for all subdomains, as in https://*.example.com, or a regular expression after a ~`, text)
	case !isHost(domain) || !isPort(port):
		return "", fmt.Errorf(`%q is not an origin: use one such as https://app.example.com or http://localhost:8080, with an international name in Punycode`, text)
	case wildcard && domain != "localhost" && !strings.Contains(domain, "."):
		return "", fmt.Errorf(`%q would allow every site of a top-level domain: use a domain of yours, as in https://*.example.com`, text)
	}
	return scheme + "://" + host + port, nil
}

// splitPort splits a host and its port, including the colon.
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

// areLabels reports whether s consists of labels separated by dots.
func areLabels(s string) bool {
	dot := true // before the first character
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

// unlikelyOrigin is allowed only by patterns that match any origin.
const unlikelyOrigin = "https://xn--q7-0fa.rgate-probe.invalid:4242"

// unbounded reports whether any page can have an allowed origin. null is such an origin,
// because pages can sandbox their frames.
func (o *origins) unbounded() bool { return o.allow(unlikelyOrigin) || o.allow("null") }
