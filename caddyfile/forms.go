package caddyfile

import (
	"reflect"
	"strings"

	"gopkg.in/yaml.v3"

	"github.com/rgate/rgate/dockerupstreams"
	"github.com/rgate/rgate/gateway"
	"github.com/rgate/rgate/gateway/operations"
)

// forms holds the alternative syntaxes of keys, by struct and field name. A form
// rewrites the node for the field's type. It returns a nil node if the key has no
// effect.
var forms = map[[2]any]func(r *reader, n *yaml.Node, path string) (*yaml.Node, error){
	{reflect.TypeFor[document](), "listen"}:                       (*reader).listenForm,
	{reflect.TypeFor[document](), "admin"}:                        (*reader).adminForm,
	{reflect.TypeFor[gateway.Gateway](), "docker"}:                (*reader).dockerForm,
	{reflect.TypeFor[gateway.Gateway](), "stats"}:                 (*reader).statsForm,
	{reflect.TypeFor[gateway.Gateway](), "operations"}:            (*reader).operationsForm,
	{reflect.TypeFor[operations.Config](), "registration"}:        (*reader).registrationForm,
	{reflect.TypeFor[gateway.Gateway](), "default_response"}:      (*reader).defaultResponseForm,
	{reflect.TypeFor[dockerupstreams.Selector](), "match_labels"}: (*reader).labelsForm,
	{reflect.TypeFor[gateway.Backend](), "lb_policy"}:             (*reader).policyForm,
	{reflect.TypeFor[gateway.Deprecation](), "since"}:             (*reader).dateForm,
	{reflect.TypeFor[gateway.Deprecation](), "sunset"}:            (*reader).dateForm,
}

// listenForm accepts an address or a list of addresses.
func (r *reader) listenForm(n *yaml.Node, _ string) (*yaml.Node, error) {
	switch n.ShortTag() {
	case "!!str":
		return sequence(n, n), nil
	case "!!int":
		return nil, r.fail(n, `listen must be an address, not the number %s: write ":%s"`, n.Value, n.Value)
	}
	return n, nil
}

// adminForm accepts an address, or off or false.
func (r *reader) adminForm(n *yaml.Node, path string) (*yaml.Node, error) {
	if n.ShortTag() != "!!bool" {
		return n, nil
	}
	if strings.EqualFold(n.Value, "true") {
		return nil, r.fail(n, `%s must be an address such as "localhost:2019", or off: correct it, or remove it to use Caddy's default`, path)
	}
	return scalar(n, adminOff), nil
}

// dockerForm accepts an endpoint or a list of endpoints. An endpoint is a map or a
// host.
func (r *reader) dockerForm(n *yaml.Node, _ string) (*yaml.Node, error) {
	endpoints := n.Content
	if n.Kind != yaml.SequenceNode {
		endpoints = []*yaml.Node{n}
	}
	list := sequence(n)
	for _, endpoint := range endpoints {
		if endpoint.ShortTag() == "!!str" {
			endpoint = mapping(endpoint, scalar(endpoint, "host"), endpoint)
		}
		list.Content = append(list.Content, endpoint)
	}
	return list, nil
}

// statsForm accepts a map, a path, true, false or off.
func (r *reader) statsForm(n *yaml.Node, _ string) (*yaml.Node, error) {
	off := mapping(n, scalar(n, "disabled"), &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!bool", Value: "true", Line: n.Line})
	switch {
	case n.ShortTag() == "!!bool" && strings.EqualFold(n.Value, "true"), n.Kind == yaml.MappingNode && len(n.Content) == 0:
		return nil, nil
	case n.ShortTag() == "!!bool", n.ShortTag() == "!!str" && n.Value == "off":
		return off, nil
	case n.ShortTag() == "!!str":
		return mapping(n, scalar(n, "path"), n), nil
	}
	return n, nil
}

// operationsForm accepts a map, a path, true or false.
func (r *reader) operationsForm(n *yaml.Node, _ string) (*yaml.Node, error) {
	switch {
	case n.ShortTag() == "!!bool" && strings.EqualFold(n.Value, "true"), isNull(n):
		return mapping(n), nil
	case n.ShortTag() == "!!bool":
		return nil, nil
	case n.ShortTag() == "!!str":
		return mapping(n, scalar(n, "path"), n), nil
	}
	return n, nil
}

// registrationForm accepts a map, true or false.
func (r *reader) registrationForm(n *yaml.Node, _ string) (*yaml.Node, error) {
	switch {
	case n.ShortTag() == "!!bool" && strings.EqualFold(n.Value, "true"), isNull(n):
		return mapping(n), nil
	case n.ShortTag() == "!!bool":
		return nil, nil
	}
	return n, nil
}

// defaultResponseForm accepts a map, or a list of maps, which it merges.
func (r *reader) defaultResponseForm(n *yaml.Node, path string) (*yaml.Node, error) {
	if n.Kind == yaml.SequenceNode {
		whole, lines := mapping(n), make(map[string]int)
		for i, part := range n.Content {
			if part.Kind != yaml.MappingNode {
				return nil, r.mismatch(part, element(path, i), "a map of keys and values")
			}
			for j := 0; j+1 < len(part.Content); j += 2 {
				key := part.Content[j]
				if first := lines[key.Value]; first > 0 {
					return nil, r.fail(key, "duplicate key %q: remove this one or the one in line %d", key.Value, first)
				}
				lines[key.Value] = key.Line
			}
			whole.Content = append(whole.Content, part.Content...)
		}
		n = whole
	}
	if isNull(n) || n.Kind == yaml.MappingNode && len(n.Content) == 0 {
		return nil, r.fail(n, "%s is empty: set body, status_code, or both", path)
	}
	return n, nil
}

// labelsForm accepts a map, or a list of key=value. Values keep their text: 1.0 is not
// converted to 1.
func (r *reader) labelsForm(n *yaml.Node, path string) (*yaml.Node, error) {
	labels := mapping(n)
	switch n.Kind {
	case yaml.MappingNode:
		for i := 0; i+1 < len(n.Content); i += 2 {
			key, value := n.Content[i], n.Content[i+1]
			if isNull(value) {
				return nil, r.fail(key, `label %q has no value: set a value, or "" for an empty label`, key.Value)
			}
			if value.Kind == yaml.ScalarNode {
				value = scalar(value, value.Value)
			}
			labels.Content = append(labels.Content, key, value)
		}
	case yaml.SequenceNode:
		seen := make(map[string]string, len(n.Content))
		for i, item := range n.Content {
			key, value, err := r.label(item, element(path, i))
			if err != nil {
				return nil, err
			}
			if previous, ok := seen[key]; ok {
				if previous != value {
					return nil, r.fail(item, "label %q is set twice: %q and %q: remove one of the two", key, previous, value)
				}
				continue
			}
			seen[key] = value
			labels.Content = append(labels.Content, scalar(item, key), scalar(item, value))
		}
	default:
		return nil, r.mismatch(n, path, "a list of key=value or a map")
	}
	return labels, nil
}

func (r *reader) label(n *yaml.Node, path string) (key, value string, err error) {
	if n.Kind == yaml.MappingNode && len(n.Content) == 2 && n.Content[1].Kind == yaml.ScalarNode {
		return "", "", r.fail(n, "%s must be text, not a map: write %s=%s, or remove the dashes", path, n.Content[0].Value, n.Content[1].Value)
	}
	if n.Kind != yaml.ScalarNode || isNull(n) {
		return "", "", r.mismatch(n, path, "text like key=value")
	}
	key, value, ok := strings.Cut(n.Value, "=")
	if !ok {
		return "", "", r.fail(n, "label %q has no value: write %s=value", n.Value, n.Value)
	}
	if strings.TrimSpace(key) != key || strings.TrimLeft(value, " ") != value {
		return "", "", r.fail(n, "label %q has spaces around the equals sign, which would be part of the label: write %s=%s",
			n.Value, strings.TrimSpace(key), strings.TrimSpace(value))
	}
	return key, value, nil
}

// policyForm accepts a map or the policy's name.
func (r *reader) policyForm(n *yaml.Node, _ string) (*yaml.Node, error) {
	if n.ShortTag() == "!!str" {
		return mapping(n, scalar(n, "policy"), n), nil
	}
	return n, nil
}

// conditions reads the conditions of header fields or query parameters: a value or a
// list of values, each kept as text. Null means that the header field must be absent.
func (r *reader) conditions(n *yaml.Node, t reflect.Type, path string) (any, error) {
	if n.Kind != yaml.MappingNode {
		return nil, r.mismatch(n, path, "a map of names and values")
	}
	conditions := make(map[string]any, len(n.Content)/2)
	for i := 0; i+1 < len(n.Content); i += 2 {
		name, node := n.Content[i].Value, n.Content[i+1]
		at := member(path, name)
		r.lines[at] = n.Content[i].Line
		if isNull(node) && t == headersType {
			conditions[name] = nil
			continue
		}
		nodes := []*yaml.Node{node}
		if node.Kind == yaml.SequenceNode {
			nodes = node.Content
		}
		values := make([]string, len(nodes))
		for i, value := range nodes {
			if value.Kind != yaml.ScalarNode || isNull(value) {
				return nil, r.mismatch(value, at, `text, or "*" for any`)
			}
			values[i] = value.Value
		}
		conditions[name] = values
	}
	return conditions, nil
}

// dateForm keeps the text of a date, which YAML parses as a timestamp.
func (r *reader) dateForm(n *yaml.Node, _ string) (*yaml.Node, error) {
	if n.ShortTag() == "!!timestamp" {
		return scalar(n, n.Value), nil
	}
	return n, nil
}

// Nodes created by forms have the line of the node they replace.

func scalar(at *yaml.Node, text string) *yaml.Node {
	return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: text, Line: at.Line}
}

func sequence(at *yaml.Node, content ...*yaml.Node) *yaml.Node {
	return &yaml.Node{Kind: yaml.SequenceNode, Tag: "!!seq", Content: content, Line: at.Line}
}

func mapping(at *yaml.Node, content ...*yaml.Node) *yaml.Node {
	return &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map", Content: content, Line: at.Line}
}
