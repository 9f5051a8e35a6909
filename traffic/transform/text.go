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

// textTemplate is a text that may have placeholders in it.
type textTemplate struct {
	raw   string
	fixed bool // it has none
}

func newTextTemplate(raw string) textTemplate {
	return textTemplate{raw, !strings.ContainsAny(raw, "{}")}
}

// in returns the text with what its placeholders stand for; nothing if that is not
// known.
func (t textTemplate) in(repl *caddy.Replacer) string {
	if t.fixed {
		return t.raw
	}
	return placeholder.Replace(repl, t.raw)
}

// fieldValue returns the text as the value of a header field, which is one line.
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

// path returns the text as an encoded path.
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

// in makes the template's JSON text.
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

// asJSON makes a JSON value of what a placeholder stands for: itself if it is one,
// null if it is nothing, else a string.
func asJSON(value any) string {
	switch value := value.(type) {
	case nil:
		return "null"
	case bodyValue:
		return value.raw
	case string, []byte, fmt.Stringer, error:
	default: // such as a list of claims
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

// bodyPlaceholder is the placeholder of a JSON request body, and what those of its
// parts begin with.
const bodyPlaceholder = "http.rgate.body"

// bodyValue is a part of a JSON body. As text, a string is what it says.
type bodyValue struct{ raw string }

func (v bodyValue) String() string {
	if value := gjson.Parse(v.raw); value.Type == gjson.String || value.Type == gjson.Null {
		return value.Str
	}
	return v.raw
}

// bodyPlaceholders makes the parts of a JSON text known as placeholders.
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
