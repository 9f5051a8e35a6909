package gateway

import (
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/rgate/rgate/internal/options"
	"github.com/rgate/rgate/policy"
)

// handlers parses directives into handlers, in Caddy's directive order. known lists the
// subdirectives to suggest for an unknown directive.
func (p *parser) handlers(parent caddyfile.Token, directives []caddyfile.Segment, known []string) ([]json.RawMessage, error) {
	if len(directives) == 0 {
		return nil, nil
	}
	block := []caddyfile.Token{
		{File: parent.File, Line: parent.Line, Text: parent.Text},
		{File: parent.File, Line: parent.Line, Text: "{"},
	}
	for _, segment := range slices.Concat(p.matchers, directives) {
		if long := "rgate_" + segment.Directive(); isHandler(long) {
			segment = slices.Clone(segment)
			segment[0].Text = long
		}
		block = append(block, segment...)
	}
	last := block[len(block)-1]
	block = append(block, caddyfile.Token{File: last.File, Line: last.Line + last.NumLineBreaks() + 1, Text: "}"})

	handler, err := httpcaddyfile.ParseSegmentAsSubroute(p.WithDispenser(caddyfile.NewDispenser(block)))
	if err != nil {
		return nil, explain(err, directives, known)
	}
	return flatten(handler.(*caddyhttp.Subroute)), nil
}

func isHandler(name string) bool {
	_, err := caddy.GetModule("http.handlers." + name)
	return err == nil
}

// flatten returns the handlers of a subroute. Routes with matchers, groups or `terminal`
// remain in a subroute. Policies without them are returned separately, and handlers that
// may respond in separate subroutes, because the gateway sorts the handlers of all levels.
func flatten(subroute *caddyhttp.Subroute) (handlers []json.RawMessage) {
	var together caddyhttp.RouteList
	flush := func() {
		if slices.ContainsFunc(together, depends) {
			handlers = append(handlers, caddyconfig.JSONModuleObject(&caddyhttp.Subroute{Routes: together}, "handler", "subroute", nil))
		} else {
			for _, route := range together {
				handlers = append(handlers, route.HandlersRaw...)
			}
		}
		together = nil
	}
	var last traits
	for _, route := range subroute.Routes {
		var all traits
		for _, raw := range route.HandlersRaw {
			all |= traitsIn(caddy.Context{}, raw)
		}
		if all &^= mayChange; all != last {
			flush()
		}
		last = all
		if depends(route) || !slices.ContainsFunc(route.HandlersRaw, isPolicy) {
			together = append(together, route)
			continue
		}
		flush()
		handlers = append(handlers, route.HandlersRaw...)
	}
	flush()
	return handlers
}

// depends reports whether a route depends on the request or on other routes.
func depends(route caddyhttp.Route) bool {
	return len(route.MatcherSetsRaw) > 0 || route.Group != "" || route.Terminal
}

// isPolicy reports whether a handler in JSON form is a policy.
func isPolicy(raw json.RawMessage) bool { return policy.Rank(rawHandlerName(raw)) > 0 }

// explain replaces Caddy's error for an unknown directive with an error that has a
// suggestion and the line of the directive.
func explain(err error, directives []caddyfile.Segment, known []string) error {
	for _, segment := range directives {
		name := segment.Directive()
		if !strings.Contains(err.Error(), "unrecognized directive: "+name+" ") {
			continue
		}
		if len(known) == 0 {
			return errAt(segment[0], "unrecognized directive '%s': use an HTTP directive of Caddy or of rgate", name)
		}
		return errAt(segment[0], "unrecognized subdirective '%s'%s: use %s, or an HTTP directive of Caddy or of rgate",
			name, options.Suggest(name, known), strings.Join(known, ", "))
	}
	// Caddy appends the position of the block to an error that already has a position.
	if inner := placedTwice.FindStringSubmatch(err.Error()); inner != nil {
		return errors.New(inner[1])
	}
	return err
}

var placedTwice = regexp.MustCompile(`^(.+, at [^,]+:\d+), at [^,]+:\d+$`)

// once records the token of a subdirective. It returns an error for a duplicate.
func (p *parser) once(path string) error {
	if first, ok := p.tokens[path]; ok {
		return p.Errf("'%s' is given twice: remove this one or the one in line %d", p.Val(), first.Line)
	}
	p.tokens[path] = p.Token()
	return nil
}

// text parses the single argument of a subdirective.
func (p *parser) text(path string, target *string) error {
	if err := p.once(path); err != nil {
		return err
	}
	if !p.NextArg() {
		return p.ArgErr()
	}
	p.tokens[path] = p.Token()
	*target = p.Val()
	if p.NextArg() {
		return p.ArgErr()
	}
	return nil
}

func (p *parser) number(path string, target *int) error {
	name, text := p.Val(), ""
	if err := p.text(path, &text); err != nil {
		return err
	}
	number, err := strconv.Atoi(text)
	if err != nil {
		return errAt(p.tokens[path], "%s must be a whole number, not '%s'", name, text)
	}
	*target = number
	return nil
}

func (p *parser) timeout(path string, target *options.Timeout) error {
	name, text := p.Val(), ""
	if err := p.text(path, &text); err != nil {
		return err
	}
	if err := target.UnmarshalText([]byte(text)); err != nil {
		return errAt(p.tokens[path], "%s must be %v, not '%s'", name, err, text)
	}
	return nil
}

func (p *parser) flag(path string, target *bool) error {
	if err := p.once(path); err != nil {
		return err
	}
	*target = true
	if p.NextArg() {
		return errAt(p.tokens[path], "'%s' does not accept arguments: remove them", p.tokens[path].Text)
	}
	return nil
}

// list appends the arguments of a repeatable subdirective.
func (p *parser) list(path string, target *[]string) error {
	p.tokens[path] = p.Token()
	args := p.RemainingArgsAsTokens()
	if len(args) == 0 {
		return p.ArgErr()
	}
	for _, arg := range args {
		p.tokens[fmt.Sprintf("%s[%d]", path, len(*target))] = arg
		*target = append(*target, arg.Text)
	}
	return nil
}

// labels adds the labels of a match_labels subdirective, which can be repeated.
func (p *parser) labels(path string, b *Backend) error {
	p.tokens[path] = p.Token()
	args := p.RemainingArgsAsTokens()
	if len(args) == 0 {
		return p.ArgErr()
	}
	if b.MatchLabels == nil {
		b.MatchLabels = make(map[string]string, len(args))
	}
	for _, arg := range args {
		key, value, ok := strings.Cut(arg.Text, "=")
		if !ok {
			return errAt(arg, "label '%s' has no value: write %s=value", arg.Text, arg.Text)
		}
		if previous, ok := b.MatchLabels[key]; ok && previous != value {
			return errAt(arg, "label '%s' is set twice: '%s' and '%s': remove one of the two", key, previous, value)
		}
		b.MatchLabels[key] = value
	}
	return nil
}

func (p *parser) timeouts(path string, target **Timeouts) error {
	if err := p.once(path); err != nil {
		return err
	}
	if p.NextArg() {
		return p.Errf("timeouts requires a block: write 'timeouts {', 'dial 3s' and '}' on separate lines")
	}
	t := new(Timeouts)
	*target = t
	for nesting := p.Nesting(); p.NextBlock(nesting); {
		at := path + "." + p.Val()
		var err error
		switch p.Val() {
		case "dial":
			err = p.timeout(at, &t.Dial)
		case "first_byte":
			err = p.timeout(at, &t.FirstByte)
		case "total":
			err = p.timeout(at, &t.Total)
		default:
			err = p.unrecognized("dial", "first_byte", "total")
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// retryBudget parses `retry_budget [<ratio> [<min_per_second>]]` or its block form.
func (p *parser) retryBudget(path string, b *Backend) error {
	if err := p.once(path); err != nil {
		return err
	}
	b.RetryBudget = new(RetryBudget)
	d := p.NewFromNextSegment()
	d.Next() // the subdirective's name
	return options.Unmarshal(d, b.RetryBudget)
}

func (p *parser) unrecognized(known ...string) error {
	return p.Errf("unrecognized subdirective '%s'%s: use %s", p.Val(), options.Suggest(p.Val(), known), strings.Join(known, ", "))
}

// tokenOf returns the token at a JSON path, or at its nearest parent.
func (p *parser) tokenOf(path string) caddyfile.Token {
	for {
		if token, ok := p.tokens[path]; ok {
			return token
		}
		path = path[:max(0, strings.LastIndexAny(path, ".["))]
	}
}

// placeFrom returns the position of other, as part of an error at token.
func placeFrom(token, other caddyfile.Token) string {
	if token.File == other.File {
		return fmt.Sprintf("in line %d", other.Line)
	}
	return fmt.Sprintf("at %s:%d", other.File, other.Line)
}

// errAt returns an error that ends with the position of a token.
func errAt(token caddyfile.Token, format string, args ...any) error {
	d := caddyfile.NewDispenser([]caddyfile.Token{token})
	d.Next()
	return d.Errf(format, args...)
}
