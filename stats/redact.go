package stats

import (
	"maps"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/rgate/rgate/internal/query"
)

// suspicious lists substrings of parameter names that can contain credentials.
var suspicious = []string{
	"token", "key", "secret", "password", "passwd", "pwd", "pw", "otp", "bearer", "signature", "sig",
	"auth", "session", "credential", "code", "jwt",
}

const (
	redacted = "REDACTED"

	// The maximum depth of queries nested within parameter values.
	deepest = 4
)

// redactedParams is the set of additional query parameters whose values are redacted. All
// methods are safe for concurrent use.
type redactedParams struct {
	mu    sync.Mutex
	names atomic.Pointer[map[string]bool] // replaced under mu; the maps are immutable
}

func (c *redactedParams) add(names []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := make(map[string]bool)
	if before := c.names.Load(); before != nil {
		maps.Copy(all, *before)
	}
	for _, name := range names {
		all[strings.ToLower(name)] = true
	}
	c.names.Store(&all)
}

// has reports whether the value of a parameter is redacted. Values of parameters with
// encoded names always are, because other parsers may decode the name differently.
func (c *redactedParams) has(name string) bool {
	name = strings.ToLower(name)
	if strings.Contains(name, "%") || slices.ContainsFunc(suspicious, func(s string) bool { return strings.Contains(name, s) }) {
		return true
	}
	names := c.names.Load()
	return names != nil && (*names)[strings.ReplaceAll(name, "+", " ")]
}

// redact redacts the values of query parameters that can contain credentials.
func (c *redactedParams) redact(address string) string {
	path, raw, ok := strings.Cut(address, "?")
	if !ok {
		return address
	}
	without, changed := c.redactQuery(raw, deepest)
	if !changed {
		return address
	}
	return path + "?" + without
}

func (c *redactedParams) redactQuery(raw string, depth int) (without string, changed bool) {
	parameters := strings.Split(raw, "&")
	for i, parameter := range parameters {
		if safe, differs := c.redactParameter(parameter, depth); differs {
			parameters[i], changed = safe, true
		}
	}
	return strings.Join(parameters, "&"), changed
}

// redactParameter redacts possible credentials in a parameter. It also redacts the text
// after them, because text after a semicolon can be part of the value. The value can be a
// URL with its own parameters.
func (c *redactedParams) redactParameter(parameter string, depth int) (without string, changed bool) {
	const separators = ";?#"
	for start := 0; start < len(parameter); {
		end := len(parameter)
		if next := strings.IndexAny(parameter[start:], separators); next >= 0 {
			end = start + next
		}
		name, value, _ := strings.Cut(parameter[start:end], "=")
		at := start + len(name) + 1 // start of the value
		// With an empty value, the separator may belong to the value.
		if at < len(parameter) && (value != "" || at == end) && c.has(name) {
			return parameter[:at] + redacted, true
		}
		if depth > 0 && strings.Contains(value, "%") {
			if inner, differs := c.redactQuery(query.Unescape(value), depth-1); differs {
				encoded := url.QueryEscape(inner)
				parameter, changed = parameter[:at]+encoded+parameter[end:], true
				end = at + len(encoded)
			}
		}
		start = end + 1
	}
	return parameter, changed
}
