package transform

import (
	"errors"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/tidwall/gjson"

	"github.com/rgate/rgate/internal/failure"
	"github.com/rgate/rgate/internal/query"
)

// The plans in this file are compiled from options that Check has validated.

// requestPlan is the compiled form of the request options.
type requestPlan struct {
	headers, query fieldPlan
	method         string
	path           *textTemplate
	body           bodyPlan
	template       *jsonTemplate
	readsBody      bool
}

// plan compiles the options. It returns nil if requests are not changed.
func (o *RequestEdits) plan() *requestPlan {
	p := &requestPlan{
		headers: o.Headers.plan(http.CanonicalHeaderKey), query: o.Query.plan(nil),
		method: o.Method, body: o.Body.plan(),
	}
	if o.Path != "" {
		path := newTextTemplate(o.Path)
		p.path = &path
	}
	if o.Body.Template != "" {
		template, _ := o.Body.compileTemplate() // validated by Check
		p.template = &template
	}
	if p.headers.empty() && p.query.empty() && p.method == "" && p.path == nil && p.body.empty() && p.template == nil {
		return nil
	}
	p.readsBody = !p.body.empty() || p.template != nil || strings.Contains(o.Path, "{"+bodyPlaceholder) ||
		o.Headers.mention("{"+bodyPlaceholder) || o.Query.mention("{"+bodyPlaceholder)
	return p
}

// mention reports whether a value of Set or Add contains text.
func (o *FieldEdits) mention(text string) bool {
	for _, values := range []map[string]string{o.Set, o.Add} {
		for _, value := range values {
			if strings.Contains(value, text) {
				return true
			}
		}
	}
	return false
}

// compileTemplate compiles the template, which is JSON or a string that contains JSON.
func (o *RequestBodyEdits) compileTemplate() (jsonTemplate, error) {
	template := string(o.Template)
	if value := gjson.Parse(template); value.Type == gjson.String {
		template = value.Str
	}
	if !validJSON(template) {
		return jsonTemplate{}, errors.New("not valid JSON")
	}
	return compileJSON(template)
}

// responsePlan is the compiled form of the response options.
type responsePlan struct {
	headers  fieldPlan
	status   map[int]int // new status by status, or by the first digit of its class
	body     bodyPlan
	envelope bool
	strict   bool
}

func (o *ResponseEdits) plan() *responsePlan {
	p := &responsePlan{
		headers: o.Headers.plan(http.CanonicalHeaderKey), body: o.Body.plan(), envelope: o.Envelope,
		strict: o.Strict != nil && *o.Strict,
		status: make(map[int]int, len(o.Status)),
	}
	for from, to := range o.Status {
		status, _ := failure.ParseStatus(from)
		p.status[status] = to
	}
	if p.headers.empty() && len(p.status) == 0 && !p.editsBody() {
		return nil
	}
	return p
}

func (p *responsePlan) editsBody() bool { return p.envelope || !p.body.empty() }

// statusFor returns the status that is sent for a backend's status.
func (p *responsePlan) statusFor(status int) int {
	if to, ok := p.status[status]; ok {
		return to
	}
	if to, ok := p.status[status/100]; ok {
		return to
	}
	return status
}

// fieldPlan is the compiled form of FieldEdits.
type fieldPlan struct {
	delete   []string
	rename   []renaming
	set, add []fieldText
}

type renaming struct{ from, to string }

type fieldText struct {
	name  string
	value textTemplate
}

// plan compiles the edits. It applies canonical to each name; nil keeps names unchanged.
func (o *FieldEdits) plan(canonical func(string) string) (p fieldPlan) {
	if canonical == nil {
		canonical = func(name string) string { return name }
	}
	for _, name := range slices.Sorted(slices.Values(o.Delete)) {
		p.delete = append(p.delete, canonical(name))
	}
	for _, from := range slices.Sorted(maps.Keys(o.Rename)) {
		p.rename = append(p.rename, renaming{canonical(from), canonical(o.Rename[from])})
	}
	texts := func(values map[string]string) (all []fieldText) {
		for _, name := range slices.Sorted(maps.Keys(values)) {
			all = append(all, fieldText{canonical(name), newTextTemplate(values[name])})
		}
		return all
	}
	p.set, p.add = texts(o.Set), texts(o.Add)
	return p
}

func (p *fieldPlan) empty() bool {
	return len(p.delete) == 0 && len(p.rename) == 0 && len(p.set) == 0 && len(p.add) == 0
}

// values returns the values of set, then of add, each evaluated with value.
func (p *fieldPlan) values(value func(textTemplate) string) []string {
	if len(p.set)+len(p.add) == 0 {
		return nil
	}
	values := make([]string, 0, len(p.set)+len(p.add))
	for _, field := range p.set {
		values = append(values, value(field.value))
	}
	for _, field := range p.add {
		values = append(values, value(field.value))
	}
	return values
}

// editHeader applies the plan to a header. values is the result of p.values.
func (p *fieldPlan) editHeader(header http.Header, values []string) {
	for _, name := range p.delete {
		delete(header, name)
	}
	for _, r := range p.rename {
		if moved, ok := header[r.from]; ok && r.from != r.to {
			header[r.to] = moved
			delete(header, r.from)
		}
	}
	for i, field := range p.set {
		header[field.name] = values[i : i+1 : i+1]
	}
	for i, field := range p.add {
		header[field.name] = append(header[field.name], values[len(p.set)+i])
	}
}

// strip removes the fields that the plan deletes, renames or sets from informational
// headers and trailers. prefix precedes each name, such as http.TrailerPrefix.
func (p *fieldPlan) strip(header http.Header, prefix string) {
	for _, name := range p.delete {
		delete(header, prefix+name)
	}
	for _, r := range p.rename {
		delete(header, prefix+r.from)
	}
	for _, field := range p.set {
		delete(header, prefix+field.name)
	}
}

// hiddenIn returns the name of a parameter that the plan deletes, renames or sets, but
// that remains in the query after a semicolon. Some backends accept semicolons as
// separators. It returns "" if there is none.
func (p *fieldPlan) hiddenIn(raw string) string {
	if !strings.Contains(raw, ";") {
		return ""
	}
	names := slices.Clone(p.delete)
	for _, r := range p.rename {
		names = append(names, r.from, r.to)
	}
	for _, field := range p.set {
		names = append(names, field.name)
	}
	for _, name := range names {
		if query.Hides(raw, name) {
			return name
		}
	}
	return ""
}

// editQuery applies the plan to a raw query. values is the result of p.values.
func (p *fieldPlan) editQuery(raw string, values []string) string {
	params := parseQuery(raw)
	for _, name := range p.delete {
		params = deleteParams(params, name)
	}
	for _, r := range p.rename {
		params = renameParams(params, r.from, r.to)
	}
	for i, field := range p.set {
		params = append(deleteParams(params, field.name), newParam(field.name, values[i]))
	}
	for i, field := range p.add {
		params = append(params, newParam(field.name, values[len(p.set)+i]))
	}
	return joinQuery(params)
}

// bodyPlan is the compiled form of BodyEdits.
type bodyPlan struct {
	delete []jsonPath
	rename []memberRenaming
	move   []valueMove
	set    []valueText
}

type memberRenaming struct {
	path jsonPath
	name string
}

type valueMove struct{ from, to jsonPath }

type valueText struct {
	path  jsonPath
	value jsonTemplate
}

func (o *BodyEdits) plan() (p bodyPlan) {
	path := func(text string) jsonPath {
		parsed, _ := parseJSONPath(text) // validated by Check
		return parsed
	}
	for _, at := range slices.Sorted(slices.Values(o.Delete)) {
		p.delete = append(p.delete, path(at))
	}
	for _, from := range slices.Sorted(maps.Keys(o.Rename)) {
		p.rename = append(p.rename, memberRenaming{path(from), o.Rename[from]})
	}
	for _, from := range slices.Sorted(maps.Keys(o.Move)) {
		p.move = append(p.move, valueMove{path(from), path(o.Move[from])})
	}
	for _, at := range slices.Sorted(maps.Keys(o.Set)) {
		template, _ := compileJSON(string(o.Set[at]))
		p.set = append(p.set, valueText{path(at), template})
	}
	return p
}

func (p *bodyPlan) empty() bool {
	return len(p.delete) == 0 && len(p.rename) == 0 && len(p.move) == 0 && len(p.set) == 0
}

// errNotMoved is returned if no value can be set at the target of a move.
var errNotMoved = errors.New("the JSON body does not match the target path of a move")

// edit applies the plan to valid JSON. Edits that fail are skipped and reported as an
// error; all other edits are applied.
func (p *bodyPlan) edit(text string, repl *caddy.Replacer) (edited string, err error) {
	for _, path := range p.delete {
		text = deleteJSON(text, path)
	}
	for _, r := range p.rename {
		text = renameJSON(text, r.path, r.name)
	}
	for _, m := range p.move {
		if changed, failed := moveJSON(text, m.from, m.to); failed == nil {
			text = changed
		} else {
			err = errNotMoved
		}
	}
	for _, s := range p.set {
		if changed, failed := setJSON(text, s.path, s.value.in(repl)); failed == nil {
			text = changed
		} else if err == nil {
			err = failed
		}
	}
	return text, err
}
