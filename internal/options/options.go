// Package options parses module options in a Caddyfile and creates errors about
// options, identified by their JSON paths.
package options

import (
	"fmt"
	"reflect"
	"strings"

	"github.com/caddyserver/caddy/v2"
)

// Error is an error about an option.
type Error struct{ field, message string }

// Errorf returns an error about an option, identified by its JSON path, such as
// `window` or `keys[1].sha256`. The message includes the remedy.
func Errorf(field, format string, args ...any) *Error {
	return &Error{field, fmt.Sprintf(format, args...)}
}

func (e *Error) Error() string { return e.message }

// Field returns the JSON path of the option.
func (e *Error) Field() string { return e.field }

// Argument returns the JSON key of the option that is set if a single value replaces a
// module's options. It is the first argument of the directive, or its first list if
// list is true.
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

// Replace replaces the placeholders in the value of an option. The error does not
// contain the value, which may be a secret.
func Replace(option, text string) (string, error) {
	value, err := caddy.NewReplacer().ReplaceOrErr(text, true, true)
	if err != nil {
		return "", Errorf(option, "%s has an unknown or empty placeholder: set its value, or write \\{ for a literal brace", option)
	}
	return value, nil
}

// ReplaceTrimmed is like Replace, but also removes trailing line breaks, which values
// from files can have.
func ReplaceTrimmed(option, text string) (string, error) {
	value, err := Replace(option, text)
	if err != nil {
		return "", err
	}
	return strings.TrimRight(value, "\r\n"), nil
}

// CheckZero returns an error if an option is set to zero or to an empty list, because
// the default would silently replace that value. It applies to fields with the tag
// `default`.
func CheckZero(option string, tag reflect.StructTag, v reflect.Value) error {
	preset, ok := tag.Lookup("default")
	if !ok {
		return nil
	}
	if v.Kind() == reflect.Slice {
		if v.Len() > 0 {
			return nil
		}
		return Errorf(option, "invalid %s: must not be empty: add a value, or remove %s to use the default (%s)", option, option, preset)
	}
	if !v.IsZero() {
		return nil
	}
	return Errorf(option, "invalid %s %v: must be above 0: increase it, or remove it to use the default (%s)", option, zeroText(v), preset)
}

func zeroText(v reflect.Value) string {
	if v.Type() == durationType {
		return "0s"
	}
	return fmt.Sprint(v.Interface())
}
