package options

import (
	"reflect"

	"github.com/caddyserver/caddy/v2"
)

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
