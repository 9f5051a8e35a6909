// Package query parses URL queries. The whole gateway uses it, so that routes, policies
// and keys see the same parameters.
package query

import (
	"iter"
	"net/url"
	"slices"
	"strings"
)

// Parameter is a query parameter.
type Parameter struct {
	Raw         string // as received
	Name, Value string // decoded
}

// All yields the parameters of a query as the gateway and most backends parse it: they
// are separated by &, and invalid escapes are kept literally. Unlike net/url, it skips
// no parameters.
func All(query string) iter.Seq[Parameter] { return split(query, "&") }

// First returns the first non-empty value of a parameter.
func First(query, name string) string {
	for p := range All(query) {
		if p.Name == name && p.Value != "" {
			return p.Value
		}
	}
	return ""
}

// Joined returns all values of a parameter, joined with commas, like Caddy's
// placeholders.
func Joined(query, name string) string {
	var values []string
	for p := range All(query) {
		if p.Name == name {
			values = append(values, p.Value)
		}
	}
	return strings.Join(values, ",")
}

// Without returns the query without a parameter. The bytes of other parameters are
// unchanged.
func Without(query, name string) string {
	var kept []string
	for p := range All(query) {
		if p.Name != name {
			kept = append(kept, p.Raw)
		}
	}
	return strings.Join(kept, "&")
}

// Values returns the parameters of a query as the gateway parses it.
func Values(query string) url.Values { return collect(All(query)) }

// Readings returns the parameters of a query for each way in which backends parse it,
// the gateway's first. It returns nil if all are equal. Some backends also separate
// parameters with semicolons. Others ignore parameters with a semicolon or an invalid
// escape.
func Readings(query string) []url.Values {
	if isClear(query) {
		return nil
	}
	strict, _ := url.ParseQuery(query)
	return []url.Values{Values(query), collect(split(strings.ReplaceAll(query, ";", "&"), "&")), strict}
}

// Agreed reports whether all backends read the same values of a parameter.
func Agreed(query, name string) bool {
	readings := Readings(query)
	for i := 1; i < len(readings); i++ {
		if !slices.Equal(readings[i][name], readings[0][name]) {
			return false
		}
	}
	return true
}

// Hides reports whether a query contains a parameter that only backends that separate
// parameters with semicolons find.
func Hides(query, name string) bool {
	if !strings.Contains(query, ";") {
		return false
	}
	for p := range All(query) {
		first := true
		for part := range split(p.Raw, ";") {
			if part.Name == name && !(first && p.Name == name) {
				return true
			}
			first = false
		}
	}
	return false
}

// Unescape decodes a name or value. Invalid escapes are kept literally.
func Unescape(text string) string {
	if decoded, err := url.QueryUnescape(text); err == nil {
		return decoded
	}
	var b strings.Builder
	for i := 0; i < len(text); i++ {
		switch {
		case text[i] == '+':
			b.WriteByte(' ')
		case text[i] == '%' && isEscape(text[i:]):
			decoded, _ := url.PathUnescape(text[i : i+3])
			b.WriteString(decoded)
			i += 2
		default:
			b.WriteByte(text[i])
		}
	}
	return b.String()
}

func split(query, separator string) iter.Seq[Parameter] {
	return func(yield func(Parameter) bool) {
		for raw := range strings.SplitSeq(query, separator) {
			name, value, _ := strings.Cut(raw, "=")
			if !yield(Parameter{raw, Unescape(name), Unescape(value)}) {
				return
			}
		}
	}
}

func collect(parameters iter.Seq[Parameter]) url.Values {
	values := make(url.Values)
	for p := range parameters {
		if p.Raw != "" {
			values[p.Name] = append(values[p.Name], p.Value)
		}
	}
	return values
}

// isClear reports whether a query has neither a semicolon nor an invalid escape.
func isClear(query string) bool {
	if strings.Contains(query, ";") {
		return false
	}
	for {
		at := strings.IndexByte(query, '%')
		if at < 0 {
			return true
		}
		if query = query[at:]; !isEscape(query) {
			return false
		}
		query = query[3:]
	}
}

// isEscape reports whether a string begins with a valid percent escape.
func isEscape(text string) bool {
	return len(text) >= 3 && text[0] == '%' && isHex(text[1]) && isHex(text[2])
}

func isHex(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F'
}
