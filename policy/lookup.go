package policy

import (
	"reflect"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"
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

// Argument returns the key in JSON of what a policy is told by a single value in
// place of all its options: the first option that is an argument of its directive,
// and, if it is a list of values that is told, the first such option that takes one.
func Argument(module caddy.ModuleInfo, list bool) (key string, ok bool) {
	v := reflect.Indirect(reflect.ValueOf(module.New()))
	if v.Kind() != reflect.Struct {
		return "", false
	}
	for _, m := range membersOf(v) {
		if m.isArg && (!list || m.value.Kind() == reflect.Slice) {
			return m.key, true
		}
	}
	return "", false
}
