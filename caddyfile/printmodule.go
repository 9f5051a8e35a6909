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
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
)

// arguments are the options of Caddy's selection policies that are arguments of
// lb_policy. The other options of a module are subdirectives in its block.
var arguments = map[string][]string{
	"header":               {"field"},
	"query":                {"key"},
	"cookie":               {"name", "secret"},
	"random_choose":        {"choose"},
	"ring_hash":            {"key"},
	"weighted_round_robin": {"weights"},
}

// The kinds of modules that can be printed.
var (
	handlers = namespace{"http.handlers", "handler"}
	policies = namespace{"http.reverse_proxy.selection_policies", "policy"}
	sinks    = namespace{"rgate.stats.sinks", "sink"}
)

// module writes a module as keyword, name, arguments and a block of options. It
// knows what most modules have: plain values, lists of them, and for policies a
// fallback. What else there is makes an error.
func (p *printer) module(path, keyword string, ns namespace, raw json.RawMessage) {
	var options map[string]any
	decoder := json.NewDecoder(bytes.NewReader(raw))
	decoder.UseNumber()
	if err := decoder.Decode(&options); err != nil {
		p.fails(path, "is not a map: %v", err)
		return
	}
	name, _ := options[ns.inlineKey].(string)
	delete(options, ns.inlineKey)
	words := []string{name}
	if keyword == "" {
		keyword, words = name, nil
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
	p.readable(ns, name, options)
	p.block(path, keyword, words, func() {
		for _, key := range slices.Sorted(maps.Keys(options)) {
			at, value := member(path, key), options[key]
			switch {
			case key == "fallback" && ns == policies:
				p.module(at, key, ns, caddyconfig.JSON(value, nil))
			case value == true:
				p.line(at, key)
			default:
				p.line(at, key, p.words(at, value)...)
			}
		}
	})
}

// readable makes durations of numbers of nanoseconds.
func (p *printer) readable(ns namespace, name string, options map[string]any) {
	module, err := caddy.GetModule(ns.name + "." + name)
	if err != nil {
		return
	}
	t := reflect.Indirect(reflect.ValueOf(module.New())).Type()
	if t.Kind() != reflect.Struct {
		return
	}
	for _, f := range p.fieldsOf(t) {
		if number, ok := options[f.name].(json.Number); ok && f.typ == durationType {
			if nanoseconds, err := number.Int64(); err == nil {
				options[f.name] = formatDuration(time.Duration(nanoseconds))
			}
		}
	}
}

// words writes a plain value, or a list of them, as the arguments of a subdirective.
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
	p.fails(path, "Print knows no Caddyfile for this: leave it out here, and add it to the Caddyfile by hand")
	return nil
}

var caddyfilePosition = regexp.MustCompile(`, at Caddyfile:(\d+)`)

// verify adapts the printed Caddyfile and compares.
func (p *printer) verify(doc *document) error {
	want, err := doc.config(doc.Listen)
	if err != nil {
		return err
	}
	// Where the order of the directive is not registered it has to be said; where
	// it is, saying it changes nothing.
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
		return p.failAt(path, "this cannot be said in a Caddyfile (%s): leave it out here, and add it to the Caddyfile by hand",
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
		return p.failAt(path, "a Caddyfile says %s differently: leave it out here, and add it to the Caddyfile by hand", path)
	}
	return nil
}

// difference finds the first place in which two JSON values differ.
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
