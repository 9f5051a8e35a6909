package transform

import (
	"encoding/json"
	"errors"
	"strings"

	"github.com/tidwall/gjson"
)

// Value is a JSON value whose strings may contain placeholders. A placeholder in a string
// is replaced by its value as text.
//
// A string that begins with `json:` represents the JSON value after the prefix, such as
// `json:5`. A single placeholder after the prefix, as in `json:{http.request.uuid}`, is
// replaced by its value if the value is JSON, by null if it is empty, and otherwise by a
// JSON string.
type Value string

const jsonMark = "json:"

// UnmarshalJSON stores the JSON value unchanged.
func (v *Value) UnmarshalJSON(data []byte) error {
	*v = Value(data)
	return nil
}

// MarshalJSON returns the stored JSON value.
func (v Value) MarshalJSON() ([]byte, error) { return []byte(v), nil }

// UnmarshalText stores text as a JSON string, or the JSON after the prefix `json:`.
func (v *Value) UnmarshalText(text []byte) error {
	if rest, ok := strings.CutPrefix(string(text), jsonMark); ok && json.Valid([]byte(rest)) {
		*v = Value(rest)
		return nil
	}
	*v = Value(quoteJSON(string(text)))
	return nil
}

// jsonTemplate is JSON split at its placeholders: the parts in order, then end.
type jsonTemplate struct {
	parts []jsonPart
	end   string
}

type jsonPart struct {
	before      string // literal JSON before the part
	text        string // a string with placeholders; encoded as a JSON string
	placeholder string // name of a placeholder whose value may be any JSON
}

var errTypedText = errors.New("the prefix json: must be followed by JSON or a single placeholder")

// compileJSON compiles valid JSON to a template.
func compileJSON(text string) (jsonTemplate, error) {
	c := jsonCompiler{text: text}
	err := c.value(gjson.Parse(text))
	c.out.end = c.pending + text[c.done:]
	return c.out, err
}

type jsonCompiler struct {
	text    string
	done    int    // index up to which text has been compiled
	pending string // literal JSON that is not part of out yet
	out     jsonTemplate
}

func (c *jsonCompiler) value(v gjson.Result) (err error) {
	if isContainer(v) {
		v.ForEach(func(_, inner gjson.Result) bool {
			err = c.value(inner)
			return err == nil
		})
		return err
	}
	if v.Type != gjson.String {
		return nil
	}
	rest, typed := strings.CutPrefix(v.Str, jsonMark)
	name, single := placeholderIn(rest)
	switch {
	case typed && single:
		c.add(v, jsonPart{placeholder: name})
	case typed && json.Valid([]byte(rest)):
		inner, err := compileJSON(rest)
		if err != nil {
			return err
		}
		for _, part := range inner.parts {
			c.add(v, part)
		}
		c.skip(v)
		c.pending += inner.end
	case typed:
		return errTypedText
	case strings.ContainsAny(v.Str, "{}"):
		c.add(v, jsonPart{text: v.Str})
	}
	return nil
}

// add appends a part that replaces the value v.
func (c *jsonCompiler) add(v gjson.Result, part jsonPart) {
	c.skip(v)
	part.before = c.pending + part.before
	c.pending = ""
	c.out.parts = append(c.out.parts, part)
}

// skip adds the text before v to pending and skips v.
func (c *jsonCompiler) skip(v gjson.Result) {
	from, to := span(v)
	if c.done <= from {
		c.pending += c.text[c.done:from]
		c.done = to
	}
}

// placeholderIn returns the name of the placeholder if text is a single placeholder.
func placeholderIn(text string) (name string, ok bool) {
	if inner, ok := strings.CutPrefix(text, "{"); ok {
		if inner, ok = strings.CutSuffix(inner, "}"); ok && inner != "" && !strings.ContainsAny(inner, `{}"\`) {
			return inner, true
		}
	}
	return "", false
}
