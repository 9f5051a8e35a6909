package caddyfile

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"

	"github.com/rgate/rgate/policy"
)

// arguments lists, by selection policy, the options that are arguments of lb_policy.
// Other options are subdirectives.
var arguments = map[string][]string{
	"header":               {"field"},
	"query":                {"key"},
	"cookie":               {"name", "secret"},
	"random_choose":        {"choose"},
	"ring_hash":            {"key"},
	"weighted_round_robin": {"weights"},
}

// The namespaces of printable modules.
var (
	handlers = namespace{"http.handlers", "handler"}
	policies = namespace{"http.reverse_proxy.selection_policies", "policy"}
	sinks    = namespace{"rgate.stats.sinks", "sink"}
)

// module writes a module as keyword, name, arguments and a block of options. The options
// can include the fallback of a selection policy and the handlers of an endpoint.
func (p *printer) module(path, keyword string, ns namespace, raw json.RawMessage) {
	var options map[string]any
	decoder := json.NewDecoder(bytes.NewReader(raw))
	decoder.UseNumber()
	if err := decoder.Decode(&options); err != nil {
		p.fails(path, "the options must be a map: %v", err)
		return
	}
	name, _ := options[ns.inlineKey].(string)
	delete(options, ns.inlineKey)
	words := []string{name}
	if keyword == "" {
		keyword, words = directiveOf(name), nil
	}
	for _, key := range arguments[name] {
		if value, ok := options[key]; ok && ns == policies {
			words = append(words, p.words(member(path, key), value)...)
			delete(options, key)
		}
	}
	if len(options) == 0 {
		p.line(path, keyword, words...)
		return
	}
	if disabled, ok := options["disabled"].(bool); ok && disabled && ns == handlers && len(options) == 1 {
		p.line(path, keyword, adminOff)
		return
	}
	if module, err := caddy.GetModule(ns.name + "." + name); err == nil {
		p.readable(reflect.TypeOf(module.New()), options)
	}
	p.block(path, keyword, words, func() {
		for _, key := range slices.Sorted(maps.Keys(options)) {
			if at := member(path, key); key == "fallback" && ns == policies {
				p.module(at, key, ns, caddyconfig.JSON(options[key], nil))
			} else if inner, ok := options[key].([]any); ok && key == "handle" && ns == handlers && policy.IsEndpoint(name) {
				raws := make([]json.RawMessage, len(inner))
				for i := range inner {
					raws[i] = caddyconfig.JSON(inner[i], nil)
				}
				p.handlers(at, raws)
			} else {
				p.subdirective(at, key, options[key])
			}
		}
	})
}

// directiveOf returns a handler's directive in the gateway's block.
func directiveOf(handler string) string {
	short := strings.TrimPrefix(handler, policy.Prefix)
	if _, ok := policy.Lookup(short); ok {
		return short
	}
	return handler // such as rgate_stats, because the subdirective stats exists
}

// subdirective writes an option of a module. Scalars and lists of scalars are written on
// one line; each map is written as a block. Other values are errors.
func (p *printer) subdirective(path, key string, value any) {
	keyword, err := quote(key)
	if err != nil {
		p.fails(path, "%v", err)
	}
	switch value := value.(type) {
	case bool:
		if value {
			p.line(path, keyword)
			return
		}
	case map[string]any:
		p.block(path, keyword, nil, func() {
			for _, key := range slices.Sorted(maps.Keys(value)) {
				p.subdirective(member(path, key), key, value[key])
			}
		})
		return
	case []any:
		if len(value) > 0 && reflect.TypeOf(value[0]).Kind() == reflect.Map {
			for i, one := range value {
				p.subdirective(element(path, i), key, one)
			}
			return
		}
	}
	p.line(path, keyword, p.words(path, value)...)
}

// readable converts values of duration types from nanoseconds to duration strings.
func (p *printer) readable(t reflect.Type, value any) any {
	switch {
	case t == durationType:
		if number, ok := value.(json.Number); ok {
			if nanoseconds, err := number.Int64(); err == nil {
				return formatDuration(caddy.Duration(nanoseconds))
			}
		}
	case t.Kind() == reflect.Pointer:
		return p.readable(t.Elem(), value)
	case t.Kind() == reflect.Struct:
		if object, ok := value.(map[string]any); ok {
			for _, f := range p.fieldsOf(t) {
				if inner, ok := object[f.name]; ok {
					object[f.name] = p.readable(f.typ, inner)
				}
			}
		}
	case t.Kind() == reflect.Slice:
		if list, ok := value.([]any); ok {
			for i := range list {
				list[i] = p.readable(t.Elem(), list[i])
			}
		}
	}
	return value
}

// words returns a scalar, or a list of scalars, as the arguments of a subdirective.
func (p *printer) words(path string, value any) []string {
	switch value := value.(type) {
	case string:
		return []string{value}
	case json.Number:
		return []string{value.String()}
	case bool:
		return []string{strconv.FormatBool(value)}
	case []any:
		var words []string
		for i, element := range value {
			words = append(words, p.words(fmt.Sprintf("%s[%d]", path, i), element)...)
		}
		return words
	}
	p.fails(path, "printing does not support this option: remove it here, and add it to the Caddyfile by hand")
	return nil
}

var caddyfilePosition = regexp.MustCompile(`, at Caddyfile:(\d+)`)

// verify adapts the printed Caddyfile and compares the JSON with the document's.
func (p *printer) verify(doc *document) error {
	want, err := doc.config(doc.Listen)
	if err != nil {
		return err
	}
	// Set the order of the directive, in case it is not registered.
	extra := "order rgate before respond"
	got, _, err := caddyconfig.GetAdapter("caddyfile").Adapt(p.text(extra), map[string]any{"filename": "Caddyfile"})
	if err != nil {
		path := ""
		if position := caddyfilePosition.FindStringSubmatch(err.Error()); position != nil {
			line, _ := strconv.Atoi(position[1])
			line -= bytes.Count(p.text(extra), []byte("\n")) - len(p.paths)
			if line > 0 && line <= len(p.paths) {
				path = p.paths[line-1]
			}
		}
		return p.failAt(path, "this is not supported in a Caddyfile (%s): remove it here, and add it to the Caddyfile by hand",
			caddyfilePosition.ReplaceAllString(err.Error(), ""))
	}
	var a, b any
	if err := json.Unmarshal(want, &a); err != nil {
		return err
	}
	if err := json.Unmarshal(got, &b); err != nil {
		return err
	}
	if path, differs := difference(a, b, ""); differs {
		path = strings.TrimPrefix(path, "apps.http.servers.srv0.routes[0].handle[0].")
		return p.failAt(path, "%s has a different meaning in a Caddyfile: remove it here, and add it to the Caddyfile by hand", path)
	}
	return nil
}

// difference reports whether two JSON values differ, and the path of the first
// difference.
func difference(a, b any, path string) (string, bool) {
	switch a := a.(type) {
	case map[string]any:
		b, ok := b.(map[string]any)
		if !ok {
			return path, true
		}
		for _, key := range slices.Sorted(maps.Keys(b)) {
			if _, ok := a[key]; !ok {
				return member(path, key), true
			}
		}
		for _, key := range slices.Sorted(maps.Keys(a)) {
			if at, differs := difference(a[key], b[key], member(path, key)); differs {
				return at, true
			}
		}
		return "", false
	case []any:
		b, ok := b.([]any)
		if !ok || len(a) != len(b) {
			return path, true
		}
		for i := range a {
			if at, differs := difference(a[i], b[i], element(path, i)); differs {
				return at, true
			}
		}
		return "", false
	}
	return path, !reflect.DeepEqual(a, b)
}
