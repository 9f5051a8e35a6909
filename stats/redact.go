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

// suspicious are parts of the names of parameters that may hold credentials.
var suspicious = []string{
	"token", "key", "secret", "password", "passwd", "pwd", "pw", "otp", "bearer", "signature", "sig",
	"auth", "session", "credential", "code", "jwt",
}

const (
	redacted = "REDACTED"

	// How many levels of queries encoded within queries are inspected.
	deepest = 4
)

// redactedParams is the set of further parameters whose values are redacted. All
// methods are safe for concurrent use.
type redactedParams struct {
	mu    sync.Mutex
	names atomic.Pointer[map[string]bool] // written under mu, never changed
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

// has reports whether the value of a parameter is redacted. An encoded name always is:
// other parsers may decode it to another name.
func (c *redactedParams) has(name string) bool {
	name = strings.ToLower(name)
	if strings.Contains(name, "%") || slices.ContainsFunc(suspicious, func(s string) bool { return strings.Contains(name, s) }) {
		return true
	}
	names := c.names.Load()
	return names != nil && (*names)[strings.ReplaceAll(name, "+", " ")]
}

// redact replaces the values of query parameters that may be credentials.
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

// redactParameter redacts what may be a credential in a parameter, and everything
// after it: what looks like the next parameter after a semicolon may be part of the
// value. The value may be a URL with parameters of its own.
func (c *redactedParams) redactParameter(parameter string, depth int) (without string, changed bool) {
	const separators = ";?#"
	for start := 0; start < len(parameter); {
		end := len(parameter)
		if next := strings.IndexAny(parameter[start:], separators); next >= 0 {
			end = start + next
		}
		name, value, _ := strings.Cut(parameter[start:end], "=")
		at := start + len(name) + 1 // where the value begins
		// An empty value before a separator is none where the separator is not one.
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
