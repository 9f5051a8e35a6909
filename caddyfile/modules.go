package caddyfile

import (
	"encoding/json"
	"errors"
	"reflect"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"
	"gopkg.in/yaml.v3"

	"github.com/rgate/rgate/gateway"
	"github.com/rgate/rgate/internal/options"
	"github.com/rgate/rgate/internal/trust"
)

// namespace is the module namespace of a field, from its `caddy` tag. Without an inline
// key, module names are the keys of a map.
type namespace struct {
	name, inlineKey string
}

func namespaceOf(tag reflect.StructTag) namespace {
	options, err := caddy.ParseStructTag(tag.Get("caddy"))
	if err != nil {
		return namespace{}
	}
	return namespace{options["namespace"], options["inline_key"]}
}

// rawTypes maps fields with raw JSON that are not modules to their types.
var rawTypes = map[[2]any]reflect.Type{
	{reflect.TypeFor[gateway.Backend](), "proxy"}: reflect.TypeFor[reverseproxy.Handler](),
}

// module reads a module whose name is the value of the inline key, such as `handler:
// headers`. Its options are read according to its type.
func (r *reader) module(n *yaml.Node, ns namespace, path string) (any, error) {
	if n.Kind != yaml.MappingNode {
		return nil, r.mismatch(n, path, "a map with the key "+ns.inlineKey)
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value != ns.inlineKey {
			continue
		}
		name := n.Content[i+1]
		r.lines[member(path, ns.inlineKey)] = name.Line
		if _, err := r.text(name, member(path, ns.inlineKey)); err != nil {
			return nil, err
		}
		module, err := r.lookup(name, ns)
		if err != nil {
			return nil, err
		}
		options, err := r.options(n, module, path, ns.inlineKey)
		if err != nil {
			return nil, err
		}
		options[ns.inlineKey] = name.Value
		return options, nil
	}
	return nil, r.fail(n, "%s has no %s: set the key %s", path, ns.inlineKey, ns.inlineKey)
}

// namedModule reads a module whose name is the key of a map.
func (r *reader) namedModule(key, n *yaml.Node, ns namespace, path string) (any, error) {
	module, err := r.lookup(key, ns)
	if err != nil {
		return nil, err
	}
	t := reflect.TypeOf(module.New())
	value, err := r.value(n, t, namespace{}, path)
	if err != nil {
		return nil, err
	}
	return value, r.accepts(module, value, path)
}

// options reads the options of a module, without its name.
func (r *reader) options(n *yaml.Node, module caddy.ModuleInfo, path, inlineKey string) (map[string]any, error) {
	t := reflect.TypeOf(module.New())
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	var options map[string]any
	var err error
	if t.Kind() == reflect.Struct && !reflect.PointerTo(t).Implements(jsonUnmarshalerType) {
		options, err = r.object(n, t, path, inlineKey)
	} else {
		var value any
		value, err = r.generic(n, path)
		options, _ = value.(map[string]any)
		delete(options, inlineKey)
	}
	if err != nil {
		return nil, err
	}
	return options, r.accepts(module, options, path)
}

// accepts decodes the options into a module and validates them.
func (r *reader) accepts(module caddy.ModuleInfo, options any, path string) error {
	decoded := module.New()
	encoded, err := json.Marshal(options)
	if err == nil {
		err = caddy.StrictUnmarshalJSON(encoded, decoded)
	}
	if err != nil {
		return r.failAt(path, "invalid %s of the module %s: %s", path, module.ID.Name(), reason(err))
	}
	if judge, ok := decoded.(checker); ok {
		if err := judge.Check(); err != nil {
			var field interface{ Field() string }
			if errors.As(err, &field) {
				path = member(path, field.Field())
			}
			return r.failAt(path, "%v", err)
		}
	}
	r.expected = append(r.expected, trust.ExpectedFields(decoded)...)
	return nil
}

// checker is implemented by modules that validate their options without being
// provisioned. The error may have a method Field that returns the name of the invalid
// option.
type checker interface{ Check() error }

func (r *reader) lookup(name *yaml.Node, ns namespace) (caddy.ModuleInfo, error) {
	module, err := caddy.GetModule(ns.name + "." + name.Value)
	if err == nil {
		return module, nil
	}
	kind := ns.inlineKey
	if kind == "" {
		kind = "module"
	}
	known := modulesIn(ns)
	if hint := options.Suggest(name.Value, known); hint != "" {
		return module, r.fail(name, "unknown %s %q%s", kind, name.Value, hint)
	}
	return module, r.fail(name, "unknown %s %q: use one of %s", kind, name.Value, strings.Join(known, ", "))
}

func modulesIn(ns namespace) []string {
	var names []string
	for _, module := range caddy.GetModules(ns.name) {
		names = append(names, module.ID.Name())
	}
	return names
}
