package transform

import (
	"encoding/json"
	"errors"
	"strconv"
	"strings"

	"github.com/tidwall/gjson"
)

// The functions of this file edit JSON text at a path and leave all other bytes as
// they are: numbers keep their digits, members their order, and space stays where it
// is. The text must be valid.
//
// gjson finds where values begin and end. Its sister sjson does not do for the rest:
// of several members of one name it edits the first, where most servers believe the
// last, so that a client could keep a member that was to be deleted.

// jsonPath leads to a value: by the names of members and the indices of elements.
type jsonPath []jsonStep

// jsonStep is a name or an index, or stands for all elements of an array.
type jsonStep struct {
	name  string
	index int // -1: the name is none
	all   bool
}

// parseJSONPath reads a path such as `user.tags.0`. `*` stands for every element of
// an array; a backslash takes the meaning from a dot or star after it.
func parseJSONPath(text string) (jsonPath, error) {
	var path jsonPath
	var name strings.Builder
	plain := true // nothing in this step was escaped
	end := func() error {
		if name.Len() == 0 {
			return errors.New("has an empty name: write names with single dots between them")
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

// hasAll reports whether the path leads to any number of values.
func (p jsonPath) hasAll() bool {
	for _, step := range p {
		if step.all {
			return true
		}
	}
	return false
}

// last is the end of the path.
func (p jsonPath) last() jsonStep { return p[len(p)-1] }

// jsonEditor collects what is to be replaced in a text, from front to back.
type jsonEditor struct {
	text     string
	done     int // up to where the text has been copied
	replaced strings.Builder
}

// replace puts a text in the place of the bytes from one index to another.
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

// span is where a value stands in the text.
func span(value gjson.Result) (from, to int) { return value.Index, value.Index + len(value.Raw) }

func isContainer(value gjson.Result) bool { return value.Type == gjson.JSON }

// takes reports whether a step leads to a member or element of a container.
func (s jsonStep) takes(container, key gjson.Result) bool {
	if container.IsObject() {
		return !s.all && key.Str == s.name
	}
	return s.all || s.index == int(key.Num)
}

// each calls f with every value that a step leads to.
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

// eachContainer calls f with everything that the path leads to but for its last step.
func eachContainer(at gjson.Result, path jsonPath, f func(container gjson.Result)) {
	if len(path) == 1 {
		f(at)
		return
	}
	each(at, path[0], func(_, value gjson.Result) { eachContainer(value, path[1:], f) })
}

// findJSON returns the value at a path. Of several, it is the last.
func findJSON(text string, path jsonPath) (found gjson.Result, ok bool) {
	eachContainer(gjson.Parse(text), path, func(container gjson.Result) {
		each(container, path.last(), func(_, value gjson.Result) { found, ok = value, true })
	})
	return found, ok
}

// deleteJSON removes what is at a path.
func deleteJSON(text string, path jsonPath) string {
	e := &jsonEditor{text: text}
	eachContainer(gjson.Parse(text), path, func(container gjson.Result) {
		e.remove(container, path.last())
	})
	return e.result()
}

// remove takes members or elements away, each with a comma beside it.
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

// remover takes some members or elements of a container away.
type remover struct {
	*jsonEditor
	open int  // where the one begins that is to be taken away with the comma after it
	end  int  // of the one before
	kept bool // whether one before stays
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

// close takes away what was open, up to an index.
func (r *remover) close(to int) {
	if r.open >= 0 {
		r.replace(r.open, to, "")
		r.open = -1
	}
}

// renameJSON gives the members at a path another name, where they stand. Others of
// that name are removed.
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

// errNoPlace says that a JSON text has no place for a value at the path.
var errNoPlace = errors.New("the body has no place for a value")

// setJSON puts a value at a path. Objects that are missing on the way are made.
func setJSON(text string, path jsonPath, value string) (string, error) {
	e := &jsonEditor{text: text}
	root := gjson.Parse(text)
	if !isContainer(root) {
		return "", errNoPlace
	}
	root.Raw = strings.TrimRight(root.Raw, " \t\r\n") // it has what follows it
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
	case path[0].index != count: // not the one after the last
		return errNoPlace
	}
	if count > 0 {
		added = "," + added
	}
	_, end := span(at)
	e.replace(end-1, end-1, added)
	return nil
}

// wrapJSON makes the objects that a path leads through, with a value at its end.
func wrapJSON(path jsonPath, raw string) string {
	for i := len(path) - 1; i >= 0; i-- {
		raw = "{" + quoteJSON(path[i].name) + ":" + raw + "}"
	}
	return raw
}

// moveJSON puts the value at one path at another. Nothing happens if there is none.
func moveJSON(text string, from, to jsonPath) (string, error) {
	value, ok := findJSON(text, from)
	if !ok {
		return text, nil
	}
	return setJSON(deleteJSON(text, from), to, value.Raw)
}

// quoteJSON makes a JSON string, with nothing escaped that need not be.
func quoteJSON(text string) string {
	if !strings.ContainsFunc(text, func(c rune) bool { return c < ' ' || c > '~' || c == '"' || c == '\\' }) {
		return `"` + text + `"`
	}
	var b strings.Builder
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	_ = encoder.Encode(text) // a text can always be encoded
	return strings.TrimSuffix(b.String(), "\n")
}

// String writes the path as it is read.
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
