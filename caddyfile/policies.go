package caddyfile

import (
	"cmp"
	"encoding/json"
	"reflect"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"gopkg.in/yaml.v3"

	"github.com/rgate/rgate/gateway"
	"github.com/rgate/rgate/gateway/operations"
	"github.com/rgate/rgate/internal/options"
	"github.com/rgate/rgate/policy"
)

// holders maps the types that support policies under short names to the key of the
// handler list that receives the policies.
var holders = map[reflect.Type]string{
	reflect.TypeFor[document]():          "handle",
	reflect.TypeFor[operations.Config](): "handle",
	reflect.TypeFor[gateway.Group]():     "handle",
	reflect.TypeFor[gateway.Route]():     "handle",
	reflect.TypeFor[gateway.Backend]():   "around",
}

// holderOf returns the key of a type's handler list for policies. Policy endpoints also
// have one.
func holderOf(t reflect.Type) (list string, ok bool) {
	if list, ok = holders[t]; ok {
		return list, true
	}
	if t.Kind() == reflect.Struct && reflect.PointerTo(t).Implements(endpointType) {
		f, ok := t.FieldByName("HandlersRaw")
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		return name, ok
	}
	return "", false
}

var endpointType = reflect.TypeFor[policy.Endpoint]()

// held is a policy configured under its short name.
type held struct {
	rank   int
	line   int
	module json.RawMessage
}

// policy reads a policy under its short name:
//
//	jwt: {…}        enabled with options
//	jwt:            enabled without options, like true
//	jwt: false      disabled
//	cors: [a, b]    the arguments of its directive
func (r *reader) policy(key, n *yaml.Node, path string) (held, bool, error) {
	module, ok := policy.Lookup(key.Value)
	if !ok {
		return held{}, false, nil
	}
	r.lines[path] = key.Line
	name := module.ID.Name()
	var err error
	if n, err = r.policyOptions(key, n, path); err != nil {
		return held{}, true, err
	}
	options, err := r.options(n, module, path, "")
	if err != nil {
		return held{}, true, err
	}
	// Encode the options through the module's type, which omits empty values.
	decoded := module.New()
	encoded, err := json.Marshal(options)
	if err == nil {
		err = caddy.StrictUnmarshalJSON(encoded, decoded)
	}
	if err == nil {
		encoded, err = moduleObject(decoded, "handler", name)
	}
	if err != nil {
		return held{}, true, r.failAt(path, "invalid %s: %s", path, reason(err))
	}
	return held{policy.Rank(name), key.Line, encoded}, true, nil
}

// policyOptions converts the short forms of a policy to a map of its options.
func (r *reader) policyOptions(key, n *yaml.Node, path string) (*yaml.Node, error) {
	isBool := n.ShortTag() == "!!bool"
	switch {
	case n.Kind == yaml.MappingNode:
		return n, nil
	case isNull(n), isBool && strings.EqualFold(n.Value, "true"):
		return mapping(key), nil
	case isBool, n.ShortTag() == "!!str" && n.Value == "off":
		return mapping(n, scalar(n, "disabled"), &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!bool", Value: "true", Line: n.Line}), nil
	}
	module, _ := policy.Lookup(key.Value)
	argument, ok := options.Argument(module, n.Kind == yaml.SequenceNode)
	if !ok {
		return nil, r.mismatch(n, path, "a map of its options")
	}
	if list, _ := options.Argument(module, true); list == argument && n.Kind == yaml.ScalarNode {
		n = sequence(n, n)
	}
	return mapping(n, scalar(n, argument), n), nil
}

// hold appends policies, sorted by rank, to a holder's handler list.
func (r *reader) hold(object map[string]any, path, list string, policies []held) {
	if len(policies) == 0 {
		return
	}
	handlers, _ := object[list].([]any)
	slices.SortStableFunc(policies, func(a, b held) int { return cmp.Compare(a.rank, b.rank) })
	for _, p := range policies {
		r.lines[element(member(path, list), len(handlers))] = p.line
		handlers = append(handlers, p.module)
	}
	object[list] = handlers
}
