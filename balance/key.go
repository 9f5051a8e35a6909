package balance

import (
	"net"
	"net/http"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// clientIP is the placeholder of the client's address, as the server's trusted
// proxies tell it.
const clientIP = "{http.vars.client_ip}"

// key finds out what a request is told apart by.
type key struct {
	text     string
	name     string // of the placeholder, if text is nothing else
	clientIP bool
}

func parseKey(text string) key {
	k := key{text: text, clientIP: text == clientIP}
	if inner, ok := strings.CutPrefix(text, "{"); ok {
		if inner, ok = strings.CutSuffix(inner, "}"); ok && !strings.ContainsAny(inner, `{}\`) {
			k.name = inner
		}
	}
	return k
}

// of returns the key of a request, with nothing in place of what is not known.
func (k *key) of(r *http.Request) string {
	if k.clientIP {
		address, _ := caddyhttp.GetVar(r.Context(), caddyhttp.ClientIPVarKey).(string)
		if strings.IndexByte(address, ':') > 0 { // it may have a port
			if host, _, err := net.SplitHostPort(address); err == nil {
				return host
			}
		}
		return address
	}
	repl, ok := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer)
	if !ok {
		return ""
	}
	if k.name != "" {
		value, _ := repl.GetString(k.name)
		return value
	}
	return repl.ReplaceAll(k.text, "")
}
