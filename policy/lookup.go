package policy

import (
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/rgate/rgate/internal/options"
)

const namespace = "http.handlers"

// Lookup returns the policy that a gateway calls by a name, without its prefix. Any
// handler that has the prefix and is a Module is one, whoever wrote it.
func Lookup(name string) (caddy.ModuleInfo, bool) {
	module, err := caddy.GetModule(namespace + "." + Prefix + name)
	if err != nil {
		return module, false
	}
	_, ok := module.New().(Module)
	return module, ok
}

// Names lists what gateways call the policies that there are, in the order in which
// they run.
func Names() (names []string) {
	for _, module := range caddy.GetModules(namespace) {
		if name, ok := strings.CutPrefix(module.ID.Name(), Prefix); ok {
			if _, is := Lookup(name); is {
				names = append(names, name)
			}
		}
	}
	slices.SortStableFunc(names, func(a, b string) int { return Rank(Prefix+a) - Rank(Prefix+b) })
	return names
}

// Directive makes the setup function of a policy's directive. Its syntax follows
// from the policy's type; see Unmarshal. The word `off` alone turns the policy off.
func Directive[T any, P interface {
	*T
	Module
}](h httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
	h.Next() // the directive's name
	p := P(new(T))
	if err := options.Unmarshal(h.Dispenser, p); err != nil {
		return nil, err
	}
	return p, nil
}
