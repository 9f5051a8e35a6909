package transform

import (
	"encoding/json"
	"errors"
	"strings"

	"github.com/tidwall/gjson"
)

// Value is a JSON value, of which every text may have placeholders in it, and takes
// what they stand for as text.
//
// A text that begins with `json:` stands for the JSON value after that, such as
// `json:5`. If nothing but a placeholder is after it, as in `json:{http.request.uuid}`, it
// stands for what the placeholder stands for, if that is a JSON value, and else
// for its text.
type Value string

const jsonMark = "json:"

// UnmarshalJSON keeps a JSON value as it is written.
func (v *Value) UnmarshalJSON(data []byte) error {
	*v = Value(data)
	return nil
}

// MarshalJSON writes the value as it was read.
func (v Value) MarshalJSON() ([]byte, error) { return []byte(v), nil }

// UnmarshalText makes a JSON string, or what stands after `json:`.
func (v *Value) UnmarshalText(text []byte) error {
	if rest, ok := strings.CutPrefix(string(text), jsonMark); ok && json.Valid([]byte(rest)) {
		*v = Value(rest)
		return nil
	}
	*v = Value(quoteJSON(string(text)))
	return nil
}

// jsonTemplate makes JSON text: pieces of it alternate with what stands in for
// placeholders.
type jsonTemplate struct {
	parts []jsonPart
	end   string
}

type jsonPart struct {
	before      string // JSON text
	text        string // with placeholders; becomes a JSON string
	placeholder string // a single one, without braces, if it may become any JSON value
}

var errTypedText = errors.New("begins with json: and goes on with neither JSON nor a single placeholder")

// compileJSON reads a valid JSON text.
func compileJSON(text string) (jsonTemplate, error) {
	c := jsonCompiler{text: text}
	err := c.value(gjson.Parse(text))
	c.out.end = c.pending + text[c.done:]
	return c.out, err
}

type jsonCompiler struct {
	text    string
	done    int    // up to where the text has been read
	pending string // JSON text before that which is no part yet
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

// add makes a part stand in the place of a value, after those that do already.
func (c *jsonCompiler) add(v gjson.Result, part jsonPart) {
	c.skip(v)
	part.before = c.pending + part.before
	c.pending = ""
	c.out.parts = append(c.out.parts, part)
}

// skip reads up to the end of a value, of which nothing is kept.
func (c *jsonCompiler) skip(v gjson.Result) {
	from, to := span(v)
	if c.done <= from {
		c.pending += c.text[c.done:from]
		c.done = to
	}
}

// placeholderIn returns the name of the placeholder that a text consists of.
func placeholderIn(text string) (name string, ok bool) {
	if inner, ok := strings.CutPrefix(text, "{"); ok {
		if inner, ok = strings.CutSuffix(inner, "}"); ok && inner != "" && !strings.ContainsAny(inner, `{}"\`) {
			return inner, true
		}
	}
	return "", false
}
