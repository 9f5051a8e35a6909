package options

import (
	"encoding"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
)

// Unmarshal parses the options of a directive from its tokens into the struct that
// target points to. The directive name is the current token.
//
//	<directive> [<arguments...>] {
//	    <key> <value>          # text, numbers, durations, sizes
//	    <key>                  # true; or <key> false
//	    <key> <value...>       # a list; may be repeated
//	    <key> <name> <value>   # a map; may be repeated, or a block of such lines
//	    <key> <name> <value...>   # a map of lists
//	    <key> [<arguments...>] { ... }   # a struct, or one of a list of structs
//	    <policy> ...           # one of a list of handlers
//	}
//
// Keys are the JSON keys of the struct. Arguments of the directive set the fields with
// the tag `caddyfile:"arg"`: one argument each, or all remaining arguments for a list.
// An error of target's method Check is reported at the line of its option.
func Unmarshal(d *caddyfile.Dispenser, target any) error {
	u := &unmarshaler{Dispenser: d, tokens: map[string]caddyfile.Token{"": d.Token()}}
	u.lookup, _ = target.(HandlerLookup)
	if err := u.object("", reflect.ValueOf(target).Elem(), true); err != nil {
		return err
	}
	if checker, ok := target.(interface{ Check() error }); ok {
		if err := checker.Check(); err != nil {
			return u.errAt(fieldOf(err), "%v", err)
		}
	}
	return nil
}

// HandlerLookup is implemented by options with a list of handlers. In the block of the
// options, handlers have the names that LookupHandler accepts.
type HandlerLookup interface {
	LookupHandler(name string) (caddy.ModuleInfo, bool)
}

// fieldOf returns the path of the option in an error, or an empty string.
func fieldOf(err error) string {
	var field interface{ Field() string }
	if errors.As(err, &field) {
		return field.Field()
	}
	return ""
}

// unmarshaler parses one directive.
type unmarshaler struct {
	*caddyfile.Dispenser
	lookup HandlerLookup              // nil: the options contain no handlers
	tokens map[string]caddyfile.Token // the token of each value, by JSON path
}

// errAt returns an error at the line of the value at a JSON path, or of its nearest
// parent.
func (u *unmarshaler) errAt(path, format string, args ...any) error {
	for {
		if token, ok := u.tokens[path]; ok {
			d := caddyfile.NewDispenser([]caddyfile.Token{token})
			d.Next()
			return d.Errf(format, args...)
		}
		path = path[:max(0, strings.LastIndexAny(path, ".["))]
	}
}

// member is a struct field that has a JSON key.
type member struct {
	key   string
	value reflect.Value
	tag   reflect.StructTag
	isArg bool
}

// membersOf returns the fields of a struct. Fields of embedded structs come last.
func membersOf(v reflect.Value) (members []member) {
	var embedded []member
	for i := range v.NumField() {
		f := v.Type().Field(i)
		key, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case f.Anonymous && key == "" && f.Type.Kind() == reflect.Struct:
			embedded = append(embedded, membersOf(v.Field(i))...)
		case f.IsExported() && key != "" && key != "-":
			members = append(members, member{key, v.Field(i), f.Tag, f.Tag.Get("caddyfile") == "arg"})
		}
	}
	return append(members, embedded...)
}

// object parses arguments and a block into a struct.
func (u *unmarshaler) object(path string, v reflect.Value, outermost bool) error {
	members := membersOf(v)
	if outermost && u.off(members) {
		return nil
	}
	for _, m := range members {
		if !m.isArg || u.CountRemainingArgs() == 0 {
			continue
		}
		count := 1
		if m.value.Kind() == reflect.Slice {
			count = u.CountRemainingArgs()
		}
		for range count {
			u.NextArg()
			if err := u.argument(join(path, m.key), m.value); err != nil {
				return err
			}
		}
		if err := CheckZero(m.key, m.tag, m.value); err != nil {
			return u.Errf("%v", err)
		}
	}
	if u.NextArg() {
		return u.Errf("unexpected argument '%s'", u.Val())
	}
	for nesting := u.Nesting(); u.NextBlock(nesting); {
		if err := u.option(path, members); err != nil {
			return err
		}
	}
	return nil
}

// off parses the argument `off`, which disables a policy, if it is the only argument.
func (u *unmarshaler) off(members []member) bool {
	if u.CountRemainingArgs() != 1 {
		return false
	}
	for _, m := range members {
		if m.key == "disabled" {
			u.NextArg()
			if u.Val() == "off" {
				m.value.SetBool(true)
				return true
			}
			u.Prev()
		}
	}
	return false
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

// option parses a subdirective, whose name is the current token.
func (u *unmarshaler) option(path string, members []member) error {
	keys := make([]string, len(members))
	for i, m := range members {
		if m.key == u.Val() {
			if err := u.value(join(path, m.key), m.value); err != nil {
				return err
			}
			if err := CheckZero(m.key, m.tag, m.value); err != nil {
				return u.errAt(join(path, m.key), "%v", err)
			}
			return nil
		}
		keys[i] = m.key
	}
	for i, m := range members {
		if m.value.Type() != handlersType || u.lookup == nil {
			continue
		}
		if module, ok := u.lookup.LookupHandler(u.Val()); ok {
			return u.handler(join(path, m.key), m.value, module)
		}
		keys[i] = "a policy"
	}
	return u.Errf("unrecognized subdirective '%s'%s: use %s", u.Val(), Suggest(u.Val(), keys), strings.Join(keys, ", "))
}

// handlersType is the type of fields with handlers. In a block, handlers have their
// short names.
var handlersType = reflect.TypeFor[[]json.RawMessage]()

// handler parses a policy, whose name is the current token, and appends it to a list of
// handlers.
func (u *unmarshaler) handler(path string, v reflect.Value, module caddy.ModuleInfo) error {
	u.tokens[fmt.Sprintf("%s[%d]", path, v.Len())] = u.Token()
	handler := module.New()
	d := u.NewFromNextSegment()
	d.Next()
	if err := Unmarshal(d, handler); err != nil {
		return err
	}
	raw := caddyconfig.JSONModuleObject(handler, "handler", module.ID.Name(), nil)
	v.Set(reflect.Append(v, reflect.ValueOf(raw)))
	return nil
}

// value parses the value after the current token, which is a key.
func (u *unmarshaler) value(path string, v reflect.Value) error {
	if first, ok := u.tokens[path]; ok && !mayRepeat(v) {
		return u.Errf("'%s' is given twice: remove this one or the one in line %d", u.Val(), first.Line)
	}
	u.tokens[path] = u.Token()
	if isScalar(v.Type()) {
		if !u.NextArg() {
			if elem(v.Type()).Kind() != reflect.Bool {
				return u.ArgErr()
			}
			return parse("true", v)
		}
		if err := u.argument(path, v); err != nil {
			return err
		}
		return u.end()
	}
	switch v.Kind() {
	case reflect.Pointer:
		if v.IsNil() {
			v.Set(reflect.New(v.Type().Elem()))
		}
		delete(u.tokens, path)
		return u.value(path, v.Elem())
	case reflect.Struct:
		return u.object(path, v, false)
	case reflect.Map:
		return u.dict(path, v)
	case reflect.Slice:
		return u.list(path, v)
	}
	return u.Errf("option '%s' is not supported in a Caddyfile: use YAML or JSON", u.Val())
}

func mayRepeat(v reflect.Value) bool {
	return !isScalar(v.Type()) && (v.Kind() == reflect.Slice || v.Kind() == reflect.Map)
}

func (u *unmarshaler) end() error {
	if u.NextArg() {
		return u.Errf("unexpected argument '%s'", u.Val())
	}
	return nil
}

// list parses one element of a list of structs, or several elements of a list of
// values.
func (u *unmarshaler) list(path string, v reflect.Value) error {
	if inner := elem(v.Type().Elem()); !isScalar(inner) && inner.Kind() == reflect.Struct {
		at := fmt.Sprintf("%s[%d]", path, v.Len())
		u.tokens[at] = u.Token()
		added := reflect.New(inner)
		if err := u.object(at, added.Elem(), false); err != nil {
			return err
		}
		if v.Type().Elem().Kind() != reflect.Pointer {
			added = added.Elem()
		}
		v.Set(reflect.Append(v, added))
		return nil
	}
	if !u.NextArg() {
		return u.ArgErr()
	}
	for more := true; more; more = u.NextArg() {
		if err := u.argument(path, v); err != nil {
			return err
		}
	}
	return nil
}

func elem(t reflect.Type) reflect.Type {
	if t.Kind() == reflect.Pointer {
		return t.Elem()
	}
	return t
}

// dict parses an entry of a map, or a block with one entry per line.
func (u *unmarshaler) dict(path string, v reflect.Value) error {
	if v.IsNil() {
		v.Set(reflect.MakeMap(v.Type()))
	}
	if u.NextArg() {
		return u.entry(path, v)
	}
	empty := true
	for nesting := u.Nesting(); u.NextBlock(nesting); empty = false {
		if err := u.entry(path, v); err != nil {
			return err
		}
	}
	if empty {
		return u.ArgErr()
	}
	return nil
}

// entry parses a map entry: the key is the current token, the value follows.
func (u *unmarshaler) entry(path string, v reflect.Value) error {
	name := u.Val()
	at := join(path, name)
	key := reflect.ValueOf(name).Convert(v.Type().Key())
	value := reflect.New(v.Type().Elem()).Elem()
	if old := v.MapIndex(key); old.IsValid() {
		if value.Kind() != reflect.Slice {
			return u.Errf("'%s' is given twice: remove one of the two", name)
		}
		value.Set(old)
	}
	u.tokens[at] = u.Token()
	count := 0
	for u.NextArg() {
		if count++; count > 1 && value.Kind() != reflect.Slice {
			return u.Errf("unexpected argument '%s'", u.Val())
		}
		if err := u.argument(at, value); err != nil {
			return err
		}
	}
	if count == 0 {
		return u.Errf("'%s' requires a value", name)
	}
	v.SetMapIndex(key, value)
	return nil
}

var (
	errDuration    = errors.New("a duration such as 500ms, 30s or 5m")
	errUnsupported = errors.New("unsupported type")
)

var (
	durationType        = reflect.TypeFor[caddy.Duration]()
	textUnmarshalerType = reflect.TypeFor[encoding.TextUnmarshaler]()
)

// isScalar reports whether values of a type are single words.
func isScalar(t reflect.Type) bool {
	if t == durationType || reflect.PointerTo(t).Implements(textUnmarshalerType) {
		return true
	}
	switch t.Kind() {
	case reflect.Pointer:
		return isScalar(t.Elem())
	case reflect.Struct, reflect.Map, reflect.Slice:
		return false
	}
	return true
}

// argument parses the current token into a value, or appends it to a list.
func (u *unmarshaler) argument(path string, v reflect.Value) error {
	text := u.Val()
	if v.Kind() == reflect.Slice && !isScalar(v.Type()) {
		u.tokens[fmt.Sprintf("%s[%d]", path, v.Len())] = u.Token()
		added := reflect.New(v.Type().Elem()).Elem()
		if err := parse(text, added); err != nil {
			return u.invalid(path, text, err)
		}
		v.Set(reflect.Append(v, added))
		return nil
	}
	u.tokens[path] = u.Token()
	if err := parse(text, v); err != nil {
		return u.invalid(path, text, err)
	}
	return nil
}

// invalid returns the error for an argument that parse has rejected with err.
func (u *unmarshaler) invalid(path, text string, err error) error {
	if errors.Is(err, errUnsupported) {
		return u.Errf("option '%s' is not supported in a Caddyfile: use YAML or JSON", path)
	}
	return u.Errf("%s must be %v, not '%s'", path, err, text)
}

// parse sets a value from its text form. The error describes valid values, or is
// errUnsupported.
func parse(text string, v reflect.Value) error {
	if v.Kind() == reflect.Pointer {
		v.Set(reflect.New(v.Type().Elem()))
		return parse(text, v.Elem())
	}
	if v.Type() == durationType {
		d, err := caddy.ParseDuration(text)
		if err != nil {
			return errDuration
		}
		v.SetInt(int64(d))
		return nil
	}
	if reader, ok := v.Addr().Interface().(encoding.TextUnmarshaler); ok {
		return reader.UnmarshalText([]byte(text))
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString(text)
		return nil
	case reflect.Bool:
		b, err := strconv.ParseBool(text)
		if err != nil {
			return errors.New("true or false")
		}
		v.SetBool(b)
		return nil
	case reflect.Float32, reflect.Float64:
		f, err := strconv.ParseFloat(text, 64)
		if err != nil {
			return errors.New("a number")
		}
		v.SetFloat(f)
		return nil
	case reflect.Interface:
		v.Set(reflect.ValueOf(text))
		return nil
	}
	if v.CanInt() {
		n, err := strconv.ParseInt(text, 10, v.Type().Bits())
		if err != nil {
			return errors.New("a whole number")
		}
		v.SetInt(n)
		return nil
	}
	if v.CanUint() {
		n, err := strconv.ParseUint(text, 10, v.Type().Bits())
		if err != nil {
			return errors.New("a whole number of at least 0")
		}
		v.SetUint(n)
		return nil
	}
	return errUnsupported
}
