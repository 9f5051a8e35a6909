package transform

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/tidwall/gjson"
	"golang.org/x/net/http/httpguts"

	"github.com/rgate/rgate/internal/placeholder"
)

// textTemplate is a string that may contain placeholders.
type textTemplate struct {
	raw   string
	fixed bool // raw contains no placeholders
}

func newTextTemplate(raw string) textTemplate {
	return textTemplate{raw, !strings.ContainsAny(raw, "{}")}
}

// in returns the string with its placeholders replaced. Unknown placeholders are replaced
// by an empty string.
func (t textTemplate) in(repl *caddy.Replacer) string {
	if t.fixed {
		return t.raw
	}
	return placeholder.Replace(repl, t.raw)
}

// fieldValue returns the string as a valid header field value. Control characters are
// replaced by spaces.
func (t textTemplate) fieldValue(repl *caddy.Replacer) string {
	value := t.in(repl)
	if t.fixed || httpguts.ValidHeaderFieldValue(value) {
		return value
	}
	return strings.Map(func(c rune) rune {
		if c < ' ' && c != '\t' || c == 0x7f {
			return ' '
		}
		return c
	}, value)
}

// path returns the string as a URL path: decoded, and encoded if URL.RawPath is needed.
func (t textTemplate) path(repl *caddy.Replacer) (path, raw string, err error) {
	encoded := t.raw
	if !t.fixed {
		encoded, err = repl.ReplaceFunc(t.raw, func(name string, _ any) (any, error) {
			value := placeholder.Value(repl, name)
			if takesPath(name) {
				return escapePath(caddy.ToString(value)), nil
			}
			return escapeSegment(caddy.ToString(value))
		})
		if err != nil {
			return "", "", err
		}
	}
	return parsePath(encoded)
}

// in returns the JSON with its placeholders replaced.
func (t jsonTemplate) in(repl *caddy.Replacer) string {
	if len(t.parts) == 0 {
		return t.end
	}
	var b []byte
	for _, part := range t.parts {
		b = append(b, part.before...)
		if part.placeholder != "" {
			b = append(b, asJSON(placeholder.Value(repl, part.placeholder))...)
		} else {
			b = append(b, quoteJSON(placeholder.Replace(repl, part.text))...)
		}
	}
	return string(append(b, t.end...))
}

// asJSON returns the value of a placeholder as JSON. Valid JSON is returned unchanged, an
// empty value becomes null, and other values become strings.
func asJSON(value any) string {
	switch value := value.(type) {
	case nil:
		return "null"
	case bodyValue:
		return value.raw
	case string, []byte, fmt.Stringer, error:
	default: // slices and maps, such as claims
		if text, err := json.Marshal(value); err == nil {
			return string(text)
		}
	}
	text := strings.TrimSpace(caddy.ToString(value))
	switch {
	case text == "":
		return "null"
	case json.Valid([]byte(text)):
		return text
	}
	return quoteJSON(caddy.ToString(value))
}

// bodyPlaceholder is the placeholder of the JSON request body and the prefix of the
// placeholders of its values.
const bodyPlaceholder = "http.rgate.body"

// bodyValue is a value in a JSON body, as raw JSON.
type bodyValue struct{ raw string }

func (v bodyValue) String() string {
	if value := gjson.Parse(v.raw); value.Type == gjson.String || value.Type == gjson.Null {
		return value.Str
	}
	return v.raw
}

// bodyPlaceholders returns a replacer function for the placeholders of a JSON body.
func bodyPlaceholders(body string) caddy.ReplacerFunc {
	return func(key string) (any, bool) {
		rest, ok := strings.CutPrefix(key, bodyPlaceholder)
		if !ok {
			return nil, false
		}
		if rest == "" {
			return bodyValue{body}, true
		}
		rest, ok = strings.CutPrefix(rest, ".")
		path, err := parseJSONPath(rest)
		if !ok || err != nil {
			return nil, false
		}
		value, ok := findJSON(body, path)
		if !ok {
			return nil, true
		}
		return bodyValue{value.Raw}, true
	}
}
