// Package options reads the options of modules from a Caddyfile and reports errors about
// them, by their paths in JSON.
package options

import (
	"fmt"
	"reflect"
	"strings"

	"github.com/caddyserver/caddy/v2"
)

// Error is an error about an option.
type Error struct{ field, message string }

// Errorf returns an error about an option, by its path in JSON, such as `window` or
// `keys[1].sha256`. The message contains the remedy.
func Errorf(field, format string, args ...any) *Error {
	return &Error{field, fmt.Sprintf(format, args...)}
}

func (e *Error) Error() string { return e.message }

// Field returns the path of the option in JSON.
func (e *Error) Field() string { return e.field }

// Argument returns the key in JSON of the option that a single value in place of a module's
// options sets: the first argument of its directive, or its first list if the value is one.
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

// Replace returns the value of an option with its placeholders replaced. The error does not
// quote the value, which may contain a secret.
func Replace(option, text string) (string, *Error) {
	value, err := caddy.NewReplacer().ReplaceOrErr(text, true, true)
	if err != nil {
		return "", Errorf(option, "%s has an unknown or empty placeholder: set its value, or write \\{ for a literal brace", option)
	}
	return value, nil
}

// ReplacePlaceholders is Replace for values from files: it removes line breaks at the end.
func ReplacePlaceholders(option, text string) (string, error) {
	value, err := Replace(option, text)
	if err != nil {
		return "", err
	}
	return strings.TrimRight(value, "\r\n"), nil
}

// CheckZero rejects an option that is set to zero or to an empty list, which would silently
// be replaced by its default. It applies to fields with the tag `default`.
func CheckZero(option string, tag reflect.StructTag, v reflect.Value) error {
	preset, ok := tag.Lookup("default")
	if !ok {
		return nil
	}
	if v.Kind() == reflect.Slice {
		if v.Len() > 0 {
			return nil
		}
		return Errorf(option, "%s cannot be empty: give it a value, or leave it out for the default, %s", option, preset)
	}
	if !v.IsZero() {
		return nil
	}
	return Errorf(option, "%s cannot be %v: use a value above that, or leave it out for the default, %s", option, zeroText(v), preset)
}

func zeroText(v reflect.Value) string {
	if v.Type() == durationType {
		return "0s"
	}
	return fmt.Sprint(v.Interface())
}
