// Package placeholder parses, checks and replaces placeholders in options.
package placeholder

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"go.uber.org/zap"

	"github.com/rgate/rgate/internal/options"
	"github.com/rgate/rgate/internal/query"
)

var shorthands = httpcaddyfile.NewShorthandReplacer()

// Expand expands Caddyfile shorthands: `{header.X}` becomes `{http.request.header.X}`.
// Caddy does not expand them in YAML and JSON.
func Expand(text string) string {
	if !strings.Contains(text, "{") {
		return text
	}
	tokens := caddyfile.Segment{{Text: text}}
	shorthands.ApplyToSegment(&tokens)
	return tokens[0].Text
}

// Names returns the expanded names of the placeholders in a string.
func Names(text string) (names []string) {
	for _, part := range partsOf(Expand(text)) {
		if part.isName {
			names = append(names, part.text)
		}
	}
	return names
}

// part is a part of a string: a placeholder's name, or literal text.
type part struct {
	text   string
	isName bool
}

// partsOf splits a string into placeholders and literal text. A backslash escapes the
// next brace.
func partsOf(text string) (parts []part) {
	begin, open := 0, -1
	for i := 0; i < len(text); i++ {
		switch text[i] {
		case '\\':
			i++
		case '{':
			open = i
		case '}':
			if open < 0 {
				continue
			}
			if begin < open {
				parts = append(parts, part{text: text[begin:open]})
			}
			parts = append(parts, part{text[open+1 : i], true})
			begin, open = i+1, -1
		}
	}
	if begin < len(text) {
		parts = append(parts, part{text: text[begin:]})
	}
	return parts
}

// parameterPlaceholder is the prefix of placeholders of query parameters.
const parameterPlaceholder = "http.request.uri.query."

// Replace replaces the placeholders in a string. Unknown placeholders are replaced with
// the empty string. Query parameters are parsed by package query, because Caddy ignores
// parameters that cannot be decoded.
func Replace(repl *caddy.Replacer, text string) string {
	if !strings.Contains(text, parameterPlaceholder) {
		return repl.ReplaceAll(text, "")
	}
	text, _ = repl.ReplaceFunc(text, func(name string, value any) (any, error) {
		if strings.HasPrefix(name, parameterPlaceholder) {
			value = Value(repl, name)
		}
		return value, nil
	})
	return text
}

// Value returns the value of a placeholder in the same way as Replace, or nil for an
// unknown placeholder.
func Value(repl *caddy.Replacer, name string) any {
	if parameter, ok := strings.CutPrefix(name, parameterPlaceholder); ok {
		raw, _ := repl.GetString("http.request.uri.query")
		return query.Joined(raw, parameter)
	}
	value, _ := repl.Get(name)
	return value
}

// CheckKey returns an error for a key with an unclosed or unknown placeholder, which
// would be equal for all requests.
func CheckKey(field, text string) *options.Error {
	if IsUnclosed(text) {
		return UnclosedError(field, text)
	}
	for _, name := range Names(text) {
		if root := closedRootOf(name); root != "" && !isKnown(name, root) {
			return options.Errorf(field, "unknown placeholder {%s} in %s%s", name, field, suggestPlaceholder(name, root))
		}
	}
	return nil
}

// WarnUnknown logs the placeholders in a string that neither Caddy nor rgate sets.
// Plugins may set them.
func WarnUnknown(ctx caddy.Context, option, text string) {
	for _, name := range Names(text) {
		if closedRootOf(name) == "" && !slices.ContainsFunc(openRoots, func(root string) bool { return strings.HasPrefix(name, root) }) {
			ctx.Logger().Warn("unknown placeholder, empty for all requests unless a plugin sets it",
				zap.String("placeholder", "{"+name+"}"), zap.String("option", option))
		}
	}
}

// openRoots lists prefixes of Caddy's placeholders whose names depend on the
// configuration or the request.
var openRoots = []string{
	"http.vars.", "http.auth.user.", "http.regexp.", "http.url_pattern.", "http.matchers.", "http.error", "http.intercept.",
	"http.response.", "http.reverse_proxy.", "http.shutting_down", "http.time_until_shutdown", "env.", "file.",
}

// closedRoots maps prefixes of placeholders to all known names. A dot or slash at the
// end of a name matches any continuation, and `#` matches a number.
var closedRoots = map[string][]string{
	"http.request.": {
		"method", "scheme", "proto", "proto_name", "host", "host.labels.#", "port", "hostport", "local", "local.host", "local.port",
		"remote", "remote.host", "remote.host/", "remote.port", "duration", "duration_ms", "uuid", "body", "body_base64",
		"uri", "uri_escaped", "uri.path", "uri.path_escaped", "uri.path.#", "uri.path.file", "uri.path.dir", "uri.path.file.base",
		"uri.path.file.ext", "uri.query", "uri.query_escaped", "uri.prefixed_query", "uri.query.",
		"orig_method", "orig_uri", "orig_uri.path", "orig_uri.path.#", "orig_uri.path.file", "orig_uri.path.file_escaped",
		"orig_uri.path.dir", "orig_uri.query", "orig_uri.prefixed_query", "header.", "cookie.",
		"tls.version", "tls.cipher_suite", "tls.resumed", "tls.proto", "tls.proto_mutual", "tls.server_name", "tls.ech", "tls.client.",
	},
	"http.rgate.": {
		"gateway", "route", "backend", "container", "coalesced", "fallback", "refused_by", "request_id", "trace_id", "param.", "body", "body.",
	},
	"system.": {"hostname", "slash", "os", "arch", "wd"},
	"time.":   {"now", "now.http", "now.rfc3339", "now.common_log", "now.year", "now.unix", "now.unix_ms"},
}

func closedRootOf(name string) string {
	for root := range closedRoots {
		if strings.HasPrefix(name, root) {
			return root
		}
	}
	return ""
}

func isKnown(name, root string) bool {
	name = strings.TrimPrefix(name, root)
	for _, known := range closedRoots[root] {
		if rest, ok := strings.CutPrefix(name, strings.TrimSuffix(known, "#")); ok {
			switch known[len(known)-1] {
			case '#':
				if n, err := strconv.Atoi(rest); err == nil && n >= 0 {
					return true
				}
			case '.', '/':
				if rest != "" {
					return true
				}
			default:
				if rest == "" {
					return true
				}
			}
		}
	}
	return false
}

// misnamed maps placeholder names of other servers, and common mistakes, to the correct
// names.
var misnamed = map[string]string{
	"http.request.path": "http.request.uri.path", "http.request.query": "http.request.uri.query",
	"http.request.url": "http.request.uri", "http.request.ip": ClientIP[1 : len(ClientIP)-1],
	"http.request.client_ip": ClientIP[1 : len(ClientIP)-1], "http.request.remote_ip": "http.request.remote.host",
	"http.request.remote_host": "http.request.remote.host", "http.request.remote_addr": "http.request.remote.host",
}

// suggestPlaceholder suggests the closest known name under a closed root, like
// options.Suggest.
func suggestPlaceholder(name, root string) string {
	const hint = " (did you mean {%s}?)"
	for wrong, right := range misnamed {
		if rest, ok := strings.CutPrefix(name, wrong); ok && (rest == "" || rest[0] == '.' && isKnown(right+rest, root)) {
			return fmt.Sprintf(hint, right+rest)
		}
	}
	segments := strings.Split(name, ".")
	best, least := "", len(name)/3
	for _, known := range closedRoots[root] {
		candidate := root + known
		if strings.HasSuffix(candidate, ".") { // matches any continuation
			n := strings.Count(candidate, ".")
			if n >= len(segments) {
				continue
			}
			candidate += strings.Join(segments[n:], ".")
		}
		if distance := options.EditDistance(strings.ToLower(name), strings.ToLower(candidate)); distance < least {
			best, least = candidate, distance
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf(hint, best)
}
