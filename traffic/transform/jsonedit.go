package transform

import (
	"encoding/json"
	"errors"
	"strconv"
	"strings"

	"github.com/tidwall/gjson"
)

// The functions in this file edit valid JSON at a path and keep all other bytes: the
// digits of numbers, the order of members and white space.
//
// Values are located with gjson. sjson cannot be used for the edits: it edits the first
// of several members with the same name, but most servers read the last. A client could
// keep a deleted member that way.

// jsonPath is the path of a value: the names of members and the indexes of elements.
type jsonPath []jsonStep

// jsonStep is a name, an index or a wildcard in a path.
type jsonStep struct {
	name  string
	index int // the name as an index; -1 if it is not a number
	all   bool
}

// parseJSONPath parses a path such as `user.tags.0`. `*` selects every element of an
// array. A backslash escapes the next character.
func parseJSONPath(text string) (jsonPath, error) {
	var path jsonPath
	var name strings.Builder
	plain := true // no character of this step is escaped
	end := func() error {
		if name.Len() == 0 {
			return errors.New("must not have empty names: separate names by single dots")
		}
		step := jsonStep{name: name.String(), index: -1, all: plain && name.String() == "*"}
		if n, err := strconv.Atoi(step.name); err == nil && strconv.Itoa(n) == step.name {
			step.index = n
		}
		path = append(path, step)
		name.Reset()
		plain = true
		return nil
	}
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case c == '.':
			if err := end(); err != nil {
				return nil, err
			}
		case c == '\\' && i+1 < len(text):
			i++
			name.WriteByte(text[i])
			plain = false
		default:
			name.WriteByte(c)
		}
	}
	return path, end()
}

// hasAll reports whether the path contains a wildcard.
func (p jsonPath) hasAll() bool {
	for _, step := range p {
		if step.all {
			return true
		}
	}
	return false
}

// last returns the last step of the path.
func (p jsonPath) last() jsonStep { return p[len(p)-1] }

// jsonEditor applies replacements to text. They must be made in ascending order.
type jsonEditor struct {
	text     string
	done     int // index up to which text has been copied
	replaced strings.Builder
}

// replace replaces the bytes from index from to index to with text.
func (e *jsonEditor) replace(from, to int, text string) {
	if e.done == 0 {
		e.replaced.Grow(len(e.text) + len(text))
	}
	e.replaced.WriteString(e.text[e.done:from])
	e.replaced.WriteString(text)
	e.done = to
}

func (e *jsonEditor) result() string {
	if e.done == 0 && e.replaced.Len() == 0 {
		return e.text
	}
	e.replaced.WriteString(e.text[e.done:])
	return e.replaced.String()
}

// span returns the start and end index of a value in the text.
func span(value gjson.Result) (from, to int) { return value.Index, value.Index + len(value.Raw) }

func isContainer(value gjson.Result) bool { return value.Type == gjson.JSON }

// takes reports whether the step matches a member or element of a container.
func (s jsonStep) takes(container, key gjson.Result) bool {
	if container.IsObject() {
		return !s.all && key.Str == s.name
	}
	return s.all || s.index == int(key.Num)
}

// each calls f for each member or element of a container that matches the step.
func each(container gjson.Result, step jsonStep, f func(key, value gjson.Result)) {
	if !isContainer(container) {
		return
	}
	container.ForEach(func(key, value gjson.Result) bool {
		if step.takes(container, key) {
			f(key, value)
		}
		return true
	})
}

// eachContainer calls f for each value that matches the path without its last step.
func eachContainer(at gjson.Result, path jsonPath, f func(container gjson.Result)) {
	if len(path) == 1 {
		f(at)
		return
	}
	each(at, path[0], func(_, value gjson.Result) { eachContainer(value, path[1:], f) })
}

// findJSON returns the value at a path. If several values match, it returns the last.
func findJSON(text string, path jsonPath) (found gjson.Result, ok bool) {
	eachContainer(gjson.Parse(text), path, func(container gjson.Result) {
		each(container, path.last(), func(_, value gjson.Result) { found, ok = value, true })
	})
	return found, ok
}

// deleteJSON removes all values at a path.
func deleteJSON(text string, path jsonPath) string {
	e := &jsonEditor{text: text}
	eachContainer(gjson.Parse(text), path, func(container gjson.Result) {
		e.remove(container, path.last())
	})
	return e.result()
}

// remove removes the matching members or elements, each with one adjacent comma.
func (e *jsonEditor) remove(container gjson.Result, step jsonStep) {
	r := remover{jsonEditor: e, open: -1}
	if isContainer(container) {
		container.ForEach(func(key, value gjson.Result) bool {
			r.next(key, value, step.takes(container, key))
			return true
		})
		r.close(r.end)
	}
}

// remover removes some members or elements of a container.
type remover struct {
	*jsonEditor
	open int  // start of a pending removal that includes the following comma; -1 if none
	end  int  // end of the previous member or element
	kept bool // an earlier member or element was kept
}

func (r *remover) next(key, value gjson.Result, remove bool) {
	from, to := span(value)
	if key.Type == gjson.String {
		from = key.Index
	}
	r.close(from)
	switch {
	case !remove:
		r.kept = true
	case r.kept:
		r.replace(r.end, to, "")
	default:
		r.open = from
	}
	r.end = to
}

// close completes the pending removal, up to index to.
func (r *remover) close(to int) {
	if r.open >= 0 {
		r.replace(r.open, to, "")
		r.open = -1
	}
}

// renameJSON renames the members at a path in place. Other members with the new name are
// removed.
func renameJSON(text string, path jsonPath, name string) string {
	e := &jsonEditor{text: text}
	eachContainer(gjson.Parse(text), path, func(container gjson.Result) {
		found := false
		each(container, path.last(), func(_, _ gjson.Result) { found = true })
		if !found || !container.IsObject() || name == path.last().name {
			return
		}
		r := remover{jsonEditor: e, open: -1}
		container.ForEach(func(key, value gjson.Result) bool {
			r.next(key, value, key.Str == name)
			if path.last().takes(container, key) {
				r.replace(key.Index, key.Index+len(key.Raw), quoteJSON(name))
			}
			return true
		})
		r.close(r.end)
	})
	return e.result()
}

// errNoPlace is returned if no value can be set at the path.
var errNoPlace = errors.New("the JSON body does not match the path of a value to set")

// setJSON sets the value at a path. It adds missing objects along the path.
func setJSON(text string, path jsonPath, value string) (string, error) {
	e := &jsonEditor{text: text}
	root := gjson.Parse(text)
	if !isContainer(root) {
		return "", errNoPlace
	}
	root.Raw = strings.TrimRight(root.Raw, " \t\r\n") // Raw includes trailing white space
	if err := e.set(root, path, value); err != nil {
		return "", err
	}
	return e.result(), nil
}

func (e *jsonEditor) set(at gjson.Result, path jsonPath, raw string) (err error) {
	count, found := 0, false
	at.ForEach(func(key, value gjson.Result) bool {
		count++
		if !path[0].takes(at, key) {
			return true
		}
		found = true
		switch from, to := span(value); {
		case len(path) == 1:
			e.replace(from, to, raw)
		case isContainer(value):
			err = e.set(value, path[1:], raw)
		case !path[1:].hasAll():
			e.replace(from, to, wrapJSON(path[1:], raw))
		}
		return err == nil
	})
	if err != nil || found || path.hasAll() {
		return err
	}
	added := wrapJSON(path[1:], raw)
	switch {
	case at.IsObject():
		added = quoteJSON(path[0].name) + ":" + added
	case path[0].index != count: // only the next index can be appended
		return errNoPlace
	}
	if count > 0 {
		added = "," + added
	}
	_, end := span(at)
	e.replace(end-1, end-1, added)
	return nil
}

// wrapJSON returns nested objects for the names in the path around the raw value.
func wrapJSON(path jsonPath, raw string) string {
	for i := len(path) - 1; i >= 0; i-- {
		raw = "{" + quoteJSON(path[i].name) + ":" + raw + "}"
	}
	return raw
}

// moveJSON moves the value at one path to another. A missing value changes nothing.
func moveJSON(text string, from, to jsonPath) (string, error) {
	value, ok := findJSON(text, from)
	if !ok {
		return text, nil
	}
	return setJSON(deleteJSON(text, from), to, value.Raw)
}

// quoteJSON returns text as a JSON string with minimal escaping.
func quoteJSON(text string) string {
	if !strings.ContainsFunc(text, func(c rune) bool { return c < ' ' || c > '~' || c == '"' || c == '\\' }) {
		return `"` + text + `"`
	}
	var b strings.Builder
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	_ = encoder.Encode(text) // encoding a string cannot fail
	return strings.TrimSuffix(b.String(), "\n")
}

// String returns the path in the syntax of parseJSONPath.
func (p jsonPath) String() string {
	var b strings.Builder
	for i, step := range p {
		if i > 0 {
			b.WriteByte('.')
		}
		switch {
		case step.all:
			b.WriteByte('*')
		case step.name == "*":
			b.WriteString(`\*`)
		default:
			b.WriteString(stepEscapes.Replace(step.name))
		}
	}
	return b.String()
}

var stepEscapes = strings.NewReplacer(".", `\.`, `\`, `\\`)
