package transform

import (
	"encoding/json"
	"reflect"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

func mustPath(t testing.TB, text string) jsonPath {
	t.Helper()
	path, err := parseJSONPath(text)
	if err != nil {
		t.Fatalf("path %q: %v", text, err)
	}
	return path
}

func TestJSONPath(t *testing.T) {
	for text, want := range map[string]jsonPath{
		"a":      {{"a", -1, false}},
		"a.b":    {{"a", -1, false}, {"b", -1, false}},
		`a\.b`:   {{"a.b", -1, false}},
		`a\\.b`:  {{`a\`, -1, false}, {"b", -1, false}},
		"0.10":   {{"0", 0, false}, {"10", 10, false}},
		"01.-1":  {{"01", -1, false}, {"-1", -1, false}},
		"*.x":    {{"*", -1, true}, {"x", -1, false}},
		`\*`:     {{"*", -1, false}},
		"a*":     {{"a*", -1, false}},
		`a\`:     {{`a\`, -1, false}},
		"#.@x|?": {{"#", -1, false}, {"@x|?", -1, false}},
	} {
		got, err := parseJSONPath(text)
		if err != nil {
			t.Errorf("%q: %v", text, err)
		}
		for i := range got {
			if got[i].index < -1 { // parseJSONPath does not parse -1 as an index
				t.Errorf("%q has the index %d", text, got[i].index)
			}
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%q is %v, want %v", text, got, want)
		}
		if again := mustPath(t, got.String()); !reflect.DeepEqual(again, got) {
			t.Errorf("%q is written as %q, which is %v", text, got.String(), again)
		}
	}
	for _, text := range []string{"", ".", "a.", ".a", "a..b"} {
		if got, err := parseJSONPath(text); err == nil {
			t.Errorf("%q is %v, want an error", text, got)
		}
	}
}

func TestJSONEdits(t *testing.T) {
	for name, tc := range map[string]struct{ text, op, path, arg, want string }{
		"delete the only one":       {`{ "a" : 1 }`, "delete", "a", "", `{  }`},
		"delete the first":          {`{"a":1, "b":2}`, "delete", "a", "", `{"b":2}`},
		"delete the last":           {`{"a":1, "b":2 }`, "delete", "b", "", `{"a":1 }`},
		"delete in the middle":      {`{"a":1,"b":{"x":[1]},"c":3}`, "delete", "b", "", `{"a":1,"c":3}`},
		"delete what is not there":  {`{"a": 1}`, "delete", "b", "", `{"a": 1}`},
		"delete below text":         {`{"a":"b"}`, "delete", "a.b", "", `{"a":"b"}`},
		"delete deep":               {`{"a":{"b":{"c":1,"d":2}}}`, "delete", "a.b.c", "", `{"a":{"b":{"d":2}}}`},
		"delete an element":         {`[1, 2, 3]`, "delete", "1", "", `[1, 3]`},
		"delete the first element":  {`[1, 2, 3]`, "delete", "0", "", `[2, 3]`},
		"delete all elements":       {`[1, 2, 3]`, "delete", "*", "", `[]`},
		"delete in all elements":    {`{"u":[{"p":1,"n":2},{"p":3},7]}`, "delete", "u.*.p", "", `{"u":[{"n":2},{},7]}`},
		"delete every duplicate":    {`{"a":1,"b":2,"a":3}`, "delete", "a", "", `{"b":2}`},
		"delete two in a row":       {`{"x":0,"a":1,"a":2,"b":3}`, "delete", "a", "", `{"x":0,"b":3}`},
		"delete nothing but those":  {`{"a":1, "a":2}`, "delete", "a", "", `{}`},
		"delete an escaped name":    {`{"\u0061":1,"b":2}`, "delete", "a", "", `{"b":2}`},
		"delete behind duplicates":  {`{"a":{"b":1},"a":{"b":2}}`, "delete", "a.b", "", `{"a":{},"a":{}}`},
		"delete with text around":   {"\n{\"a\":1}\n", "delete", "a", "", "\n{}\n"},
		"braces in texts":           {`{"x":"},{\"a\":1","a":1}`, "delete", "a", "", `{"x":"},{\"a\":1"}`},
		"star is no member":         {`{"a":1,"*":2}`, "delete", "*", "", `{"a":1,"*":2}`},
		"escaped star is a member":  {`{"a":1,"*":2}`, "delete", `\*`, "", `{"a":1}`},
		"rename":                    {`{"a": 1,"b":2}`, "rename", "a", "z", `{"z": 1,"b":2}`},
		"rename deep":               {`{"a":{"b":1}}`, "rename", "a.b", "c", `{"a":{"c":1}}`},
		"rename over another":       {`{"z":0,"a":1}`, "rename", "a", "z", `{"z":1}`},
		"rename over a later one":   {`{"a":1,"y":5,"z":0}`, "rename", "a", "z", `{"z":1,"y":5}`},
		"rename what is not there":  {`{"z":0}`, "rename", "a", "z", `{"z":0}`},
		"rename to itself":          {`{"a":0}`, "rename", "a", "a", `{"a":0}`},
		"rename duplicates":         {`{"a":0,"a":1}`, "rename", "a", "b", `{"b":0,"b":1}`},
		"rename in all elements":    {`[{"a":1},{"b":2},{"a":3}]`, "rename", "*.a", "c", `[{"c":1},{"b":2},{"c":3}]`},
		"rename with quotes":        {`{"a":1}`, "rename", "a", `"`, `{"\"":1}`},
		"rename with a dot":         {`{"a":1}`, "rename", "a", `b.c`, `{"b.c":1}`},
		"set a new one":             {`{"a":1}`, "set", "b", `"v2"`, `{"a":1,"b":"v2"}`},
		"set the first one":         {`{ }`, "set", "b", `1`, `{ "b":1}`},
		"set an old one":            {`{"a": 1, "b":2}`, "set", "a", `[]`, `{"a": [], "b":2}`},
		"set every duplicate":       {`{"a":1,"a":2}`, "set", "a", `3`, `{"a":3,"a":3}`},
		"set deep":                  {`{"a":{"b":1}}`, "set", "a.c", `2`, `{"a":{"b":1,"c":2}}`},
		"set deeper than there is":  {`{}`, "set", "a.b.c", `2`, `{"a":{"b":{"c":2}}}`},
		"set below null":            {`{"a":null}`, "set", "a.b", `2`, `{"a":{"b":2}}`},
		"set below text":            {`{"a":"x"}`, "set", "a.b", `2`, `{"a":{"b":2}}`},
		"set an element":            {`[1, 2]`, "set", "1", `3`, `[1, 3]`},
		"set one more element":      {`[1, 2 ]`, "set", "2", `3`, `[1, 2 ,3]`},
		"set the first element":     {`{"a":[]}`, "set", "a.0.b", `3`, `{"a":[{"b":3}]}`},
		"set in all elements":       {`{"a":[{},{"b":1}]}`, "set", "a.*.b", `3`, `{"a":[{"b":3},{"b":3}]}`},
		"set in elements of none":   {`{"b":1}`, "set", "a.*.b", `3`, `{"b":1}`},
		"set in elements of null":   {`{"a":null}`, "set", "a.*.b", `3`, `{"a":null}`},
		"set all elements":          {`[1,2]`, "set", "*", `0`, `[0,0]`},
		"set with space behind":     {"{\"a\":1}\r\n", "set", "b", `2`, "{\"a\":1,\"b\":2}\r\n"},
		"big numbers":               {`{"n":12345678901234567890.10e+5,"a":1}`, "set", "a", `2`, `{"n":12345678901234567890.10e+5,"a":2}`},
		"set an element too far":    {`[1]`, "set", "2", `3`, "error"},
		"set a name in an array":    {`[1]`, "set", "a", `3`, "error"},
		"set in a number":           {`1`, "set", "a", `3`, "error"},
		"set deep in an array":      {`{"a":[1]}`, "set", "a.b", `3`, "error"},
		"move":                      {`{"a":{"b":1},"c":2}`, "move", "a.b", "d.e", `{"a":{},"c":2,"d":{"e":1}}`},
		"move what is not there":    {`{"c":2}`, "move", "a.b", "c", `{"c":2}`},
		"move over its own parent":  {`{"a":{"b":1}}`, "move", "a.b", "a", `{"a":1}`},
		"move the last of several":  {`{"a":1,"a":2}`, "move", "a", "b", `{"b":2}`},
		"move where nothing can be": {`{"a":1,"b":[]}`, "move", "a", "b.x", "error"},
	} {
		var got string
		var err error
		switch path := mustPath(t, tc.path); tc.op {
		case "delete":
			got = deleteJSON(tc.text, path)
		case "rename":
			got = renameJSON(tc.text, path, tc.arg)
		case "set":
			got, err = setJSON(tc.text, path, tc.arg)
		case "move":
			got, err = moveJSON(tc.text, path, mustPath(t, tc.arg))
		}
		if err != nil {
			got = "error"
		}
		if got != tc.want {
			t.Errorf("%s: %s %s in %s: got %s, want %s", name, tc.op, tc.path, tc.text, got, tc.want)
		}
	}
}

// Deletion must remove all members with the same name, in linear time.
func TestManyDuplicates(t *testing.T) {
	const n = 100_000
	text := "{" + strings.Repeat(`"a":1,`, n) + `"b":2}`
	if got := deleteJSON(text, mustPath(t, "a")); got != `{"b":2}` {
		t.Errorf("%d bytes are left", len(got))
	}
	deep := strings.Repeat(`{"a":`, 5000) + "1" + strings.Repeat("}", 5000)
	if got := deleteJSON(deep, mustPath(t, "a")); got != "{}" {
		t.Errorf("%d bytes are left", len(got))
	}
}

// naive applies the edits to decoded JSON. It is the reference for the edits of text.
func naive(tree any, op string, path jsonPath, arg any) any {
	step, last := path[0], len(path) == 1
	switch tree := tree.(type) {
	case map[string]any:
		if step.all {
			return tree
		}
		value, ok := tree[step.name]
		switch {
		case !last && ok && (op != "set" || isTree(value)):
			tree[step.name] = naive(value, op, path[1:], arg)
		case !last && op == "set" && !path.hasAll():
			tree[step.name] = naive(map[string]any{}, op, path[1:], arg)
		case !last:
		case op == "delete":
			delete(tree, step.name)
		case op == "rename" && ok && arg != step.name:
			delete(tree, step.name)
			tree[arg.(string)] = value
		case op == "set":
			tree[step.name] = arg
		}
		return tree
	case []any:
		kept := make([]any, 0, len(tree))
		for i, value := range tree {
			taken := step.all || step.index == i
			switch {
			case taken && last && op == "delete":
				continue
			case taken && last && op == "set":
				value = arg
			case taken && !last && (op != "set" || isTree(value)):
				value = naive(value, op, path[1:], arg)
			case taken && !last && op == "set" && !path[1:].hasAll():
				value = naive(map[string]any{}, op, path[1:], arg)
			}
			kept = append(kept, value)
		}
		if op == "set" && step.index == len(tree) && !path.hasAll() {
			var value any = map[string]any{}
			if last {
				value = arg
			} else {
				value = naive(value, op, path[1:], arg)
			}
			kept = append(kept, value)
		}
		return kept
	}
	return tree
}

func isTree(value any) bool {
	switch value.(type) {
	case map[string]any, []any:
		return true
	}
	return false
}

func decode(t testing.TB, text string) (tree any) {
	t.Helper()
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	if err := d.Decode(&tree); err != nil {
		t.Fatalf("%q: %v", text, err)
	}
	return tree
}

// hasDuplicates reports whether an object in text has several members with the same name.
func hasDuplicates(text string) bool {
	d := json.NewDecoder(strings.NewReader(text))
	var names []map[string]bool // names in the enclosing objects; nil for an array
	key := false
	for {
		token, err := d.Token()
		if err != nil {
			return false
		}
		switch token {
		case json.Delim('{'):
			names, key = append(names, map[string]bool{}), true
			continue
		case json.Delim('['):
			names, key = append(names, nil), false
			continue
		case json.Delim('}'), json.Delim(']'):
			names = names[:len(names)-1]
		default:
			if key {
				name := token.(string)
				if names[len(names)-1][name] {
					return true
				}
				names[len(names)-1][name] = true
				key = false
				continue
			}
		}
		key = len(names) > 0 && names[len(names)-1] != nil
	}
}

// lawsHold compares an edit with the reference and checks that other bytes are kept.
func lawsHold(t testing.TB, text, op, at, arg string) {
	t.Helper()
	path, err := parseJSONPath(at)
	if err != nil || !json.Valid([]byte(text)) {
		return
	}
	var got string
	var value any = arg
	switch op {
	case "delete":
		got = deleteJSON(text, path)
	case "rename":
		if path.last().all {
			return
		}
		got = renameJSON(text, path, arg)
	case "set":
		value = decode(t, quoteJSON(arg))
		if got, err = setJSON(text, path, quoteJSON(arg)); err != nil {
			return
		}
	}
	if !json.Valid([]byte(got)) {
		t.Fatalf("%s %q in %q leaves %q, which is no JSON", op, at, text, got)
	}
	if hasDuplicates(text) || !isValidText(text, at, arg) {
		return
	}
	if want := naive(decode(t, text), op, path, value); !reflect.DeepEqual(decode(t, got), want) {
		t.Fatalf("%s %q in %q with %q leaves %q, want %v", op, at, text, arg, got, want)
	}
	switch left, old := tokens(got), tokens(text); op {
	case "delete":
		if !isSubsequence(left, old) {
			t.Fatalf("delete %q in %q leaves %q: something else has changed", at, text, got)
		}
	case "rename":
		isName := func(token string) bool {
			return token == quoteJSON(arg) || strings.HasPrefix(token, `"`) && decode(t, token) == path.last().name
		}
		left, old = slices.DeleteFunc(left, isName), slices.DeleteFunc(old, isName)
		if !isSubsequence(left, old) {
			t.Fatalf("rename %q in %q to %q leaves %q: something else has changed", at, text, arg, got)
		}
	case "set":
		if before, ok := findJSON(text, path); ok && !path.hasAll() {
			if again, _ := setJSON(got, path, before.Raw); again != text {
				t.Fatalf("set %q in %q and back again makes %q", at, text, again)
			}
		}
	}
}

// isValidText reports whether a decoder keeps the strings in text unchanged.
func isValidText(texts ...string) bool {
	for _, text := range texts {
		if strings.Contains(text, `\ud`) || strings.Contains(text, `\uD`) || !utf8.ValidString(text) || strings.ContainsRune(text, '\ufffd') {
			return false
		}
	}
	return true
}

// tokens returns the names, values and brackets in text, in their original encoding.
func tokens(text string) (all []string) {
	d := json.NewDecoder(strings.NewReader(text))
	last := int64(0)
	for {
		if _, err := d.Token(); err != nil {
			return all
		}
		all = append(all, strings.TrimLeft(text[last:d.InputOffset()], " \t\r\n,:"))
		last = d.InputOffset()
	}
}

// isSubsequence reports whether all contains the elements of few in the same order.
func isSubsequence(few, all []string) bool {
	for _, one := range few {
		i := slices.Index(all, one)
		if i < 0 {
			return false
		}
		all = all[i+1:]
	}
	return true
}

func FuzzJSONEdit(f *testing.F) {
	for _, text := range []string{
		`{"user_data":{"id":1},"n":[1,{"a":null},"x"],"a.b":true}`, `[{"a":1},{"a":2}]`, ` {"a" : {"b" : {} } , "c":[ ] } `,
		`{"a":"\"}","\u0061":2}`, `12345678901234567890`, `{"*":1,"0":2}`, `[[[1]],2]`,
	} {
		for op := range 3 {
			for _, at := range []string{"user_data", "a.b", "*.a", "n.1.a", "0", `a\.b`} {
				f.Add(text, uint8(op), at, "user")
			}
		}
	}
	f.Fuzz(func(t *testing.T, text string, op uint8, at, arg string) {
		lawsHold(t, text, []string{"delete", "rename", "set"}[op%3], at, arg)
	})
}

func TestNaiveAgrees(t *testing.T) {
	texts := []string{
		`{"a":1,"b":{"a":[1,2,{"a":3}],"c":null},"c":[{"a":1},{"b":2},3]}`, `[]`, `{}`, `[1,[2,{"a":{"b":1}}]]`, `null`,
	}
	names := []string{"a", "b", "c", "0", "1", "2", "*", "b.a", "b.a.2", "b.a.2.a", "c.*.a", "c.0", "c.3", "1.1.a.b", "x.y", "b.c.x", "*.*.a"}
	for _, text := range texts {
		for _, at := range names {
			for _, op := range []string{"delete", "rename", "set"} {
				lawsHold(t, text, op, at, "b")
			}
		}
	}
}

func TestQuoteJSON(t *testing.T) {
	for text, want := range map[string]string{
		"": `""`, "a <b> & c": `"a <b> & c"`, "a\"\\\n\x00": `"a\"\\\n\u0000"`, "é&": `"é&"`, "\xff": `"\ufffd"`, "\u2028": `"\u2028"`,
	} {
		if got := quoteJSON(text); got != want {
			t.Errorf("%q is %s, want %s", text, got, want)
		}
	}
}
