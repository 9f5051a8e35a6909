package caddyfile

import (
	"cmp"
	"encoding"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"reflect"
	"regexp"
	"strconv"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"gopkg.in/yaml.v3"

	"github.com/rgate/rgate/dockerupstreams"
	"github.com/rgate/rgate/internal/options"
	"github.com/rgate/rgate/policy"
)

// reader converts YAML nodes to JSON values according to the Go types of the
// configuration. It records the line of each value.
type reader struct {
	file   string
	lines  map[string]int // the lines of values, by path in the JSON configuration
	fields map[reflect.Type][]field

	// The names of request header fields with underscores or dots that modules read.
	expected []string
}

// field is a struct field with its JSON name.
type field struct {
	name      string
	typ       reflect.Type
	namespace namespace
	owner     reflect.Type // the struct that declares the field, possibly embedded
	tag       reflect.StructTag
}

var (
	durationType        = reflect.TypeFor[caddy.Duration]()
	headersType         = reflect.TypeFor[caddyhttp.MatchHeader]()
	queryType           = reflect.TypeFor[caddyhttp.MatchQuery]()
	rawType             = reflect.TypeFor[json.RawMessage]()
	sizeType            = reflect.TypeFor[options.Size]()
	signalType          = reflect.TypeFor[dockerupstreams.Signal]()
	jsonUnmarshalerType = reflect.TypeFor[json.Unmarshaler]()
	textUnmarshalerType = reflect.TypeFor[encoding.TextUnmarshaler]()
)

// value reads a node as a value of type t. ns is the namespace if t holds modules.
func (r *reader) value(n *yaml.Node, t reflect.Type, ns namespace, path string) (any, error) {
	switch {
	case t == rawType && ns.inlineKey != "":
		return r.module(n, ns, path)
	case t == rawType || t.Kind() == reflect.Interface:
		return r.generic(n, path)
	case t == durationType || t == options.TimeoutType:
		return r.duration(n, path)
	case t == headersType || t == queryType:
		return r.conditions(n, t, path)
	case reflect.PointerTo(t).Implements(jsonUnmarshalerType), reflect.PointerTo(t).Implements(textUnmarshalerType):
		return r.opaque(n, t, path)
	}
	switch t.Kind() {
	case reflect.Pointer:
		return r.value(n, t.Elem(), ns, path)
	case reflect.Struct:
		return r.object(n, t, path, "")
	case reflect.Map:
		return r.dict(n, t, ns, path)
	case reflect.Slice, reflect.Array:
		return r.list(n, t, ns, path)
	case reflect.String:
		return r.text(n, path)
	case reflect.Bool:
		if n.ShortTag() != "!!bool" {
			return nil, r.mismatch(n, path, "true or false")
		}
		return strings.EqualFold(n.Value, "true"), nil
	case reflect.Float32, reflect.Float64:
		if tag := n.ShortTag(); tag != "!!float" && tag != "!!int" {
			return nil, r.mismatch(n, path, "a number")
		}
		return r.generic(n, path)
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return r.integer(n, t, path)
	}
	return r.opaque(n, t, path)
}

// object reads a map whose keys are the fields of a struct. inlineKey, if set, is also
// allowed.
func (r *reader) object(n *yaml.Node, t reflect.Type, path, inlineKey string) (map[string]any, error) {
	if n.Kind != yaml.MappingNode {
		return nil, r.mismatch(n, path, "a map of keys and values")
	}
	object := make(map[string]any, len(n.Content)/2+1)
	list, holds := holderOf(t)
	var policies []held
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, node := n.Content[i], n.Content[i+1]
		if key.Value == inlineKey && inlineKey != "" {
			continue
		}
		if holds {
			p, known, err := r.policy(key, node, member(path, key.Value))
			if err != nil {
				return nil, err
			}
			if known {
				policies = append(policies, p)
				continue
			}
		}
		f, err := r.field(key, t, inlineKey)
		if err != nil {
			return nil, err
		}
		at := member(path, f.name)
		r.lines[at] = key.Line
		if rewrite, ok := forms[[2]any{f.owner, f.name}]; ok {
			if node, err = rewrite(r, node, at); err != nil {
				return nil, err
			}
			if node == nil {
				continue // equivalent to a missing key
			}
		}
		ft := f.typ
		if known, ok := rawTypes[[2]any{f.owner, f.name}]; ok {
			ft = known
		}
		if object[f.name], err = r.value(node, ft, f.namespace, at); err != nil {
			return nil, err
		}
		if err := refuseZero(f, object[f.name]); err != nil {
			return nil, r.failAt(at, "%v", err)
		}
	}
	r.hold(object, path, list, policies)
	return object, nil
}

func (r *reader) field(key *yaml.Node, t reflect.Type, inlineKey string) (field, error) {
	fields := r.fieldsOf(t)
	var known []string
	for _, f := range fields {
		if f.name == key.Value {
			return f, nil
		}
		known = append(known, f.name)
	}
	if inlineKey != "" {
		known = append(known, inlineKey)
	}
	if len(known) == 0 {
		return field{}, r.fail(key, "unknown key %q: remove the key, because this object has no options", key.Value)
	}
	_, holds := holders[t]
	likely := known
	if holds {
		likely = append(policy.Names(), known...)
	}
	if hint := options.Suggest(key.Value, likely); hint != "" {
		return field{}, r.fail(key, "unknown key %q%s", key.Value, hint)
	}
	list := strings.Join(known, ", ")
	if holds {
		list += ", or a policy such as rate_limit"
	}
	return field{}, r.fail(key, "unknown key %q: use one of %s", key.Value, list)
}

// refuseZero returns an error for a field that is set to zero if zero selects its
// default.
func refuseZero(f field, value any) error {
	if f.tag.Get("default") == "" {
		return nil
	}
	encoded, err := json.Marshal(value)
	decoded := reflect.New(f.typ)
	if err != nil || json.Unmarshal(encoded, decoded.Interface()) != nil {
		return nil // reported by another check
	}
	return options.CheckZero(f.name, f.tag, decoded.Elem())
}

// fieldsOf returns the fields of a struct that have a JSON name.
func (r *reader) fieldsOf(t reflect.Type) []field {
	if fields, ok := r.fields[t]; ok {
		return fields
	}
	var fields []field
	for i := range t.NumField() {
		f := t.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case name == "-" || !f.IsExported() && !f.Anonymous:
		case f.Anonymous && name == "":
			embedded := f.Type
			if embedded.Kind() == reflect.Pointer {
				embedded = embedded.Elem()
			}
			if embedded.Kind() == reflect.Struct {
				fields = append(fields, r.fieldsOf(embedded)...)
			}
		case name != "":
			fields = append(fields, field{name, f.Type, namespaceOf(f.Tag), t, f.Tag})
		}
	}
	r.fields[t] = fields
	return fields
}

// dict reads a map with arbitrary keys, or with module names as keys.
func (r *reader) dict(n *yaml.Node, t reflect.Type, ns namespace, path string) (any, error) {
	if n.Kind != yaml.MappingNode {
		return nil, r.mismatch(n, path, "a map of keys and values")
	}
	dict := make(map[string]any, len(n.Content)/2)
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, node := n.Content[i], n.Content[i+1]
		at := member(path, key.Value)
		r.lines[at] = key.Line
		var err error
		if t.Elem() == rawType && ns.name != "" && ns.inlineKey == "" {
			dict[key.Value], err = r.namedModule(key, node, ns, at)
		} else {
			dict[key.Value], err = r.value(node, t.Elem(), ns, at)
		}
		if err != nil {
			return nil, err
		}
	}
	return dict, nil
}

func (r *reader) list(n *yaml.Node, t reflect.Type, ns namespace, path string) (any, error) {
	if t.Elem().Kind() == reflect.Uint8 && t != rawType {
		return r.opaque(n, t, path) // []byte is a base64 string in JSON
	}
	if n.Kind != yaml.SequenceNode {
		if n.Kind == yaml.ScalarNode && !isNull(n) {
			return nil, r.fail(n, "%s must be a list, not %s: write [%s]", path, describe(n), n.Value)
		}
		return nil, r.mismatch(n, path, "a list")
	}
	list := make([]any, len(n.Content))
	for i, node := range n.Content {
		at := element(path, i)
		r.lines[at] = node.Line
		var err error
		if list[i], err = r.value(node, t.Elem(), ns, at); err != nil {
			return nil, err
		}
	}
	return list, nil
}

func (r *reader) text(n *yaml.Node, path string) (any, error) {
	if n.ShortTag() == "!!str" {
		return n.Value, nil
	}
	if n.Kind == yaml.ScalarNode && !isNull(n) {
		return nil, r.fail(n, "%s must be text, not %s: put it in quotes", path, describe(n))
	}
	return nil, r.mismatch(n, path, "text")
}

func (r *reader) integer(n *yaml.Node, t reflect.Type, path string) (any, error) {
	number, ok := new(big.Int).SetString(n.Value, 0)
	if n.ShortTag() != "!!int" || !ok {
		if _, err := strconv.Atoi(n.Value); err == nil && n.ShortTag() == "!!str" {
			return nil, r.fail(n, "%s must be a whole number, not the text %q: remove the quotes", path, n.Value)
		}
		return nil, r.mismatch(n, path, "a whole number")
	}
	fits := number.IsInt64() && !reflect.Zero(t).CanUint() && !reflect.Zero(t).OverflowInt(number.Int64()) ||
		number.IsUint64() && reflect.Zero(t).CanUint() && !reflect.Zero(t).OverflowUint(number.Uint64())
	if !fits {
		return nil, r.fail(n, "%s is out of range: %s is too large or too small", path, n.Value)
	}
	return json.Number(number.String()), nil
}

// duration reads a duration and returns nanoseconds, as a Caddyfile does.
func (r *reader) duration(n *yaml.Node, path string) (any, error) {
	if n.ShortTag() == "!!int" || n.ShortTag() == "!!float" {
		return nil, r.fail(n, "%s has no unit: write %ss for seconds, or use ms, m, h or d", path, n.Value)
	}
	duration, err := caddy.ParseDuration(n.Value)
	if n.ShortTag() != "!!str" || err != nil {
		return nil, r.mismatch(n, path, "a duration such as 500ms, 30s or 5m")
	}
	return json.Number(strconv.FormatInt(int64(duration), 10)), nil
}

// opaque reads a value of a type that implements its own decoding.
func (r *reader) opaque(n *yaml.Node, t reflect.Type, path string) (any, error) {
	value, err := r.generic(n, path)
	if err != nil {
		return nil, err
	}
	encoded, err := json.Marshal(value)
	decoded := reflect.New(t)
	if err == nil {
		err = json.Unmarshal(encoded, decoded.Interface())
	}
	written := t == sizeType || t == signalType // types with several forms of a value
	if err != nil && written {
		return nil, r.mismatch(n, path, cmp.Or(errors.Unwrap(err), err).Error())
	}
	if err == nil && written { // encode as a Caddyfile does
		encoded, err = json.Marshal(decoded.Interface())
	}
	if err != nil {
		return nil, r.fail(n, "invalid %s: %s", path, reason(err))
	}
	return json.RawMessage(encoded), nil
}

// generic reads a node according to its YAML type. Numbers keep their precision.
func (r *reader) generic(n *yaml.Node, path string) (any, error) {
	switch n.Kind {
	case yaml.MappingNode:
		return r.dict(n, reflect.TypeFor[map[string]any](), namespace{}, path)
	case yaml.SequenceNode:
		return r.list(n, reflect.TypeFor[[]any](), namespace{}, path)
	}
	switch n.ShortTag() {
	case "!!null":
		return nil, nil
	case "!!bool":
		return strings.EqualFold(n.Value, "true"), nil
	case "!!int", "!!float":
		if json.Valid([]byte(n.Value)) {
			return json.Number(n.Value), nil
		}
		if number, ok := new(big.Int).SetString(n.Value, 0); ok {
			return json.Number(number.String()), nil
		}
		var number float64
		if err := n.Decode(&number); err == nil {
			if encoded, err := json.Marshal(number); err == nil {
				return json.RawMessage(encoded), nil
			}
		}
		return nil, r.fail(n, "%s: JSON does not support the number %s: put it in quotes", path, n.Value)
	}
	return n.Value, nil
}

// mismatch returns the error for a value of the wrong type.
func (r *reader) mismatch(n *yaml.Node, path, expected string) error {
	if isNull(n) {
		return r.fail(n, "%s has no value: set it to %s, or remove it", path, expected)
	}
	if n.Kind == yaml.MappingNode && n.Style&yaml.FlowStyle != 0 && len(n.Content) == 2 && isNull(n.Content[1]) {
		return r.fail(n, `%s must be %s, not a map: put the placeholder in quotes, as "{%s}"`, path, expected, n.Content[0].Value)
	}
	return r.fail(n, "%s must be %s, not %s", path, expected, describe(n))
}

func (r *reader) failLine(line int, format string, args ...any) error {
	return &Error{File: r.file, Line: max(line, 1), Message: fmt.Sprintf(format, args...)}
}

// describe returns a description of a node for error messages.
func describe(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a map"
	case yaml.SequenceNode:
		return "a list"
	case yaml.AliasNode:
		return "an alias"
	}
	switch n.ShortTag() {
	case "!!null":
		return "nothing"
	case "!!int", "!!float":
		return "the number " + n.Value
	case "!!bool":
		return n.Value
	case "!!timestamp":
		return "the date " + n.Value
	}
	return "the text " + strconv.Quote(n.Value)
}

func isNull(n *yaml.Node) bool {
	return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null"
}

func member(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

func element(path string, i int) string {
	return fmt.Sprintf("%s[%d]", path, i)
}

var jsonPrefix = regexp.MustCompile(`^json: (?:cannot unmarshal )?`)

// reason returns the message of a JSON error without Go types.
func reason(err error) string {
	var mismatch *json.UnmarshalTypeError
	if errors.As(err, &mismatch) {
		return fmt.Sprintf("a %s is not supported here", mismatch.Value)
	}
	return jsonPrefix.ReplaceAllString(err.Error(), "")
}

// pathOf returns the path in a JSON error, or "".
func pathOf(err error) string {
	var mismatch *json.UnmarshalTypeError
	if errors.As(err, &mismatch) {
		return mismatch.Field
	}
	return ""
}
