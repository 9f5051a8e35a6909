package placeholder

import (
	"net/http"
	"strings"

	"github.com/caddyserver/caddy/v2"

	"github.com/rgate/rgate/internal/options"
	"github.com/rgate/rgate/internal/trust"
)

// ClientIP is the placeholder of the client's address, determined by the server's
// trusted proxies.
const ClientIP = "{http.vars.client_ip}"

// Key is a string with placeholders whose value groups requests.
type Key struct {
	text     string
	name     string // name of the placeholder, if text is a single placeholder
	parts    []part // parts of text; literal braces are unescaped
	clientIP bool
}

// ParseKey parses a string with placeholders, including Caddyfile shorthands.
func ParseKey(text string) Key {
	text = Expand(text)
	k := Key{text: text, clientIP: text == ClientIP}
	if inner, ok := strings.CutPrefix(text, "{"); ok {
		if inner, ok = strings.CutSuffix(inner, "}"); ok && !strings.ContainsAny(inner, `{}\`) {
			k.name = inner
			return k
		}
	}
	k.parts = partsOf(text)
	for i := range k.parts {
		if p := &k.parts[i]; !p.isName {
			p.text = caddy.NewEmptyReplacer().ReplaceAll(p.text, "")
		}
	}
	return k
}

// IsPlaceholder reports whether the key is a single placeholder.
func (k *Key) IsPlaceholder() bool { return k.name != "" }

// OfEach is like Of, but calls replace for the value of each placeholder. The key must
// not be a single placeholder.
func (k *Key) OfEach(r *http.Request, replace func(value string) string) string {
	repl, ok := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer)
	if !ok {
		return ""
	}
	var b strings.Builder
	for _, p := range k.parts {
		if p.isName {
			b.WriteString(replace(caddy.ToString(Value(repl, p.text))))
		} else {
			b.WriteString(p.text)
		}
	}
	return b.String()
}

// Has reports whether a string contains a placeholder.
func Has(text string) bool {
	_, after, ok := strings.Cut(text, "{")
	return ok && strings.Contains(after, "}")
}

// IsUnclosed reports whether a string contains a placeholder without its closing brace.
func IsUnclosed(text string) bool {
	begun := false
	for i := 0; i < len(text); i++ {
		switch text[i] {
		case '\\':
			i++
		case '{':
			begun = true
		case '}':
			begun = false
		}
	}
	return begun
}

// UnclosedError returns the error for an unclosed placeholder.
func UnclosedError(field, text string) *options.Error {
	return options.Errorf(field, "%s %q has an unclosed placeholder: close it with }", field, text)
}

// IsClientIP reports whether the key is only the client's address.
func (k *Key) IsClientIP() bool { return k.clientIP }

// Of returns the key's value for a request. Unknown placeholders are empty.
func (k *Key) Of(r *http.Request) string {
	if k.clientIP {
		return trust.ClientAddress(r)
	}
	repl, ok := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer)
	if !ok {
		return ""
	}
	if k.name != "" {
		return caddy.ToString(Value(repl, k.name))
	}
	return Replace(repl, k.text)
}
