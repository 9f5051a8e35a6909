package transform

import (
	"encoding/json"
	"maps"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"golang.org/x/net/http/httpguts"

	"github.com/rgate/rgate/internal/failure"
	"github.com/rgate/rgate/internal/options"
)

// Check implements policy.Module.
func (t *Transform) Check() error {
	if t.MaxBody < 0 || t.MaxBody > 1<<31 {
		return options.Errorf("max_body", "invalid max_body %d: must be at most 2GiB", t.MaxBody)
	}
	for _, check := range []func() *options.Error{t.Request.check, t.Response.check} {
		if err := check(); err != nil {
			return err
		}
	}
	return nil
}

func (o *RequestEdits) check() *options.Error {
	if err := o.Headers.checkHeader("request.headers"); err != nil {
		return err
	}
	if err := o.Query.check("request.query", func(name string) string { return name }); err != nil {
		return err
	}
	if err := checkMethod(o.Method); err != nil {
		return err
	}
	if err := checkPath(o.Path); err != nil {
		return err
	}
	return o.Body.check()
}

var methodName = regexp.MustCompile(`^[A-Z][A-Z_-]*$`)

func checkMethod(method string) *options.Error {
	switch {
	case method == "":
		return nil
	case method == http.MethodHead || method == http.MethodConnect || !methodName.MatchString(method):
		return options.Errorf("request.method", "invalid method %q: must be in upper case and not HEAD or CONNECT, such as PUT", method)
	}
	return nil
}

var placeholders = regexp.MustCompile(`\{[^{}]*\}`)

func checkPath(path string) *options.Error {
	if path == "" {
		return nil
	}
	if path[0] != '/' && path[0] != '{' {
		return options.Errorf("request.path", "invalid path %q: must begin with a slash: use /%s", path, path)
	}
	fixed := placeholders.ReplaceAllString(path, "x")
	if strings.ContainsAny(fixed, "{}") {
		return options.Errorf("request.path", "invalid path %q: braces must belong to placeholders: use %%7B and %%7D for other braces", path)
	}
	if strings.ContainsAny(fixed, "?#") {
		return options.Errorf("request.path", "invalid path %q: must not contain a query or fragment: use the option query", path)
	}
	if u, err := url.ParseRequestURI("/" + strings.TrimLeft(fixed, "/")); err != nil || strings.ContainsAny(fixed, " \\") || u.Path == "" {
		return options.Errorf("request.path", "invalid path %q: must be percent-encoded, such as %%20 for a space", path)
	}
	if _, _, err := parsePath(fixed); err != nil {
		return options.Errorf("request.path", "invalid path %q: must not begin with two slashes or contain dot segments", path)
	}
	return nil
}

func (o *RequestBodyEdits) check() *options.Error {
	if err := o.BodyEdits.check("request.body"); err != nil || o.Template == "" {
		return err
	}
	if !o.BodyEdits.empty() {
		return options.Errorf("request.body.template", "template cannot be combined with delete, rename, move or set: express the edits in the template, or remove template")
	}
	if _, err := o.compileTemplate(); err != nil {
		return options.Errorf("request.body.template", `invalid template: %v: must be JSON with placeholders in strings, such as {"user": "{http.auth.user.id}"}`, err)
	}
	return nil
}

func (o *ResponseEdits) check() *options.Error {
	if err := o.Headers.checkHeader("response.headers"); err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(o.Headers.Set)) {
		if http.CanonicalHeaderKey(name) == "Host" {
			return options.Errorf("response.headers.set."+name, "Host cannot be set in a response: set Host in request.headers")
		}
	}
	for _, from := range slices.Sorted(maps.Keys(o.Status)) {
		if _, ok := failure.ParseStatus(from); !ok || from == "304" || from == "206" {
			return options.Errorf("response.status."+from, "invalid status %q: must be 200 to 599 other than 206 and 304, or a class such as 5xx", from)
		}
		if to := o.Status[from]; to < 200 || to > 599 || to == http.StatusNotModified || to == http.StatusPartialContent {
			return options.Errorf("response.status."+from, "invalid status %d: must be 200 to 599 other than 206 and 304", to)
		}
	}
	if o.Strict != nil && o.Body.empty() {
		return options.Errorf("response.strict", "strict requires body: set body or remove strict")
	}
	return o.Body.check("response.body")
}

// framing lists header fields that cannot be changed: the gateway sets them for each
// connection, and other values would corrupt the message framing.
var framing = []string{"Connection", "Content-Length", "Keep-Alive", "Proxy-Connection", "Te", "Trailer", "Transfer-Encoding", "Upgrade"}

func (o *FieldEdits) checkHeader(at string) *options.Error {
	if err := o.check(at, http.CanonicalHeaderKey); err != nil {
		return err
	}
	for place, name := range o.names(at) {
		switch canonical := http.CanonicalHeaderKey(name); {
		case !httpguts.ValidHeaderFieldName(name):
			return options.Errorf(place, "invalid header field name %q: use letters, digits and dashes", name)
		case slices.Contains(framing, canonical):
			return options.Errorf(place, "header field %s cannot be changed, because the gateway sets it for each connection: remove %[1]s", canonical)
		case canonical == "Host" && !strings.HasPrefix(place, at+".set."):
			return options.Errorf(place, "Host cannot be added, deleted or renamed: use set")
		case !httpguts.ValidHeaderFieldValue(o.Set[name]) || !httpguts.ValidHeaderFieldValue(o.Add[name]):
			return options.Errorf(place, "invalid value of %s: must be one line without control characters", name)
		}
	}
	return nil
}

// names yields each name in the options with the path of its option.
func (o *FieldEdits) names(at string) func(func(place, name string) bool) {
	return func(yield func(place, name string) bool) {
		for _, name := range o.Delete {
			if !yield(at+".delete", name) {
				return
			}
		}
		for _, from := range slices.Sorted(maps.Keys(o.Rename)) {
			if place := at + ".rename." + from; !yield(place, from) || !yield(place, o.Rename[from]) {
				return
			}
		}
		for _, name := range slices.Sorted(maps.Keys(o.Set)) {
			if !yield(at+".set."+name, name) {
				return
			}
		}
		for _, name := range slices.Sorted(maps.Keys(o.Add)) {
			if !yield(at+".add."+name, name) {
				return
			}
		}
	}
}

// check validates the rules that apply to both header fields and parameters.
func (o *FieldEdits) check(at string, canonical func(string) string) *options.Error {
	for place, name := range o.names(at) {
		if name == "" {
			return options.Errorf(place, "invalid empty name: must be the name of a header field or query parameter")
		}
	}
	return checkRenaming(at+".rename", o.Rename, canonical)
}

// checkRenaming returns an error if the result depends on the order in which names are
// changed.
func checkRenaming(at string, renaming map[string]string, canonical func(string) string) *options.Error {
	sources, targets := make(map[string]bool), make(map[string]string)
	for from := range renaming {
		sources[canonical(from)] = true
	}
	for _, from := range slices.Sorted(maps.Keys(renaming)) {
		to := canonical(renaming[from])
		if other, ok := targets[to]; ok {
			return options.Errorf(at+"."+from, "%q and %q cannot both be renamed to %q: remove one of them", other, from, renaming[from])
		}
		if sources[to] {
			return options.Errorf(at+"."+from, "%q is renamed to %q, which is also renamed: use the final name", from, renaming[from])
		}
		targets[to] = from
	}
	return nil
}

func (o *BodyEdits) check(at string) *options.Error {
	for _, path := range o.Delete {
		if _, err := parseJSONPath(path); err != nil {
			return options.Errorf(at+".delete", "invalid path %q: %v", path, err)
		}
	}
	if err := o.checkRename(at + ".rename"); err != nil {
		return err
	}
	for _, from := range slices.Sorted(maps.Keys(o.Move)) {
		for _, end := range []string{from, o.Move[from]} {
			if path, err := parseJSONPath(end); err != nil {
				return options.Errorf(at+".move."+from, "invalid path %q: %v", end, err)
			} else if path.hasAll() {
				return options.Errorf(at+".move."+from, "invalid path %q: must match a single value: use an index instead of *", end)
			}
		}
	}
	if err := checkRenaming(at+".move", o.Move, func(path string) string { return path }); err != nil {
		return err
	}
	for _, path := range slices.Sorted(maps.Keys(o.Set)) {
		if _, err := parseJSONPath(path); err != nil {
			return options.Errorf(at+".set."+path, "invalid path %q: %v", path, err)
		}
		if !validJSON(string(o.Set[path])) {
			return options.Errorf(at+".set."+path, "invalid value of %s: must be a string, a number, true, false, null, a list or a map", path)
		}
		if _, err := compileJSON(string(o.Set[path])); err != nil {
			return options.Errorf(at+".set."+path, "invalid value of %s: %v: use json:5 or json:{http.rgate.body.id}", path, err)
		}
	}
	return nil
}

func (o *BodyEdits) checkRename(at string) *options.Error {
	ends := make(map[string]string, len(o.Rename)) // new paths by old paths
	for _, from := range slices.Sorted(maps.Keys(o.Rename)) {
		path, err := parseJSONPath(from)
		switch {
		case err != nil:
			return options.Errorf(at+"."+from, "invalid path %q: %v", from, err)
		case path.last().all:
			return options.Errorf(at+"."+from, "invalid path %q: must end with a member name", from)
		case o.Rename[from] == "":
			return options.Errorf(at+"."+from, "the new name of %q is empty: use delete to remove it", from)
		}
		ends[path.String()] = append(path[:len(path)-1:len(path)-1], jsonStep{name: o.Rename[from]}).String()
	}
	return checkRenaming(at, ends, func(path string) string { return path })
}

// empty reports whether there are no edits.
func (o *BodyEdits) empty() bool {
	return len(o.Delete)+len(o.Rename)+len(o.Move)+len(o.Set) == 0
}

func validJSON(text string) bool { return json.Valid([]byte(text)) }
