package transform

import (
	"net/url"
	"slices"
	"strings"
	"testing"
)

func TestHasDots(t *testing.T) {
	for path, want := range map[string]bool{
		"/a/b": false, "/a/..b/c.": false, "/...": false, "/a;..": false, "/100%": false,
		"/..": true, "/a/./b": true, "/a/..": true, `/a\..\b`: true, "/..;x=1/a": true, "/a/%2e%2e": true, "/%252e.": true, "/a%2f..%2fb": true, "/a%5c..": true,
	} {
		if got := hasDots(path); got != want {
			t.Errorf("%q: got %t", path, got)
		}
	}
}

// A value from the client stays a single segment and cannot traverse to another path,
// even if it is decoded repeatedly.
func FuzzPathSegment(f *testing.F) {
	for _, value := range []string{"a", "..", "a/b", "%2e%2e", "%252e%252e", "a?b#c", "a;b", `\`, "é \x00\xff", "%", "..;"} {
		f.Add(value)
	}
	f.Fuzz(func(t *testing.T, value string) {
		encoded, err := escapeSegment(value)
		if err != nil {
			return
		}
		path, raw, err := parsePath("/v2/" + encoded + "/x")
		if err != nil {
			return
		}
		if path != "/v2/"+value+"/x" {
			t.Fatalf("%q became %q", value, path)
		}
		u := url.URL{Path: path, RawPath: raw}
		if again, err := url.ParseRequestURI(u.RequestURI()); err != nil || again.Path != path || again.RawQuery != "" {
			t.Fatalf("%q is sent as %q, which is read as %v, %v", value, u.RequestURI(), again, err)
		}
		segments := strings.Split(path, "/")
		if len(segments) != 4 || slices.Contains(segments, "..") || slices.Contains(segments, ".") {
			t.Fatalf("%q became %q", value, path)
		}
	})
}

// Other parameters keep their bytes and order. Edited parameters are found in any
// encoding.
func FuzzQuery(f *testing.F) {
	for _, raw := range []string{"", "a=1&b=2", "%61=1&&b", "a=%zz&%zz=a", "a;b=1", "a+b=c&a%20b=d", "=x&a"} {
		f.Add(raw, "a", "new")
	}
	f.Fuzz(func(t *testing.T, raw, name, value string) {
		if name == "" {
			return
		}
		old := parseQuery(raw)
		if joinQuery(old) != raw {
			t.Fatalf("%q is written as %q", raw, joinQuery(old))
		}
		others := deleteParams(slices.Clone(old), name)
		if !slices.Equal(others, slices.DeleteFunc(slices.Clone(old), func(p queryParam) bool {
			key, err := url.QueryUnescape(strings.SplitN(p.raw, "=", 2)[0])
			return err == nil && key == name
		})) {
			t.Fatalf("without %q, %q is %q", name, raw, joinQuery(others))
		}
		set := joinQuery(append(others, newParam(name, value)))
		pieces := strings.Split(set, "&")
		if key, text, _ := strings.Cut(pieces[len(pieces)-1], "="); unescape(t, key) != name || unescape(t, text) != value {
			t.Fatalf("%q with %q=%q is %q", raw, name, value, set)
		}
		renamed := renameParams(slices.Clone(old), name, value)
		if value != "" && len(renamed) > len(old) {
			t.Fatalf("%q is longer with another name", raw)
		}
	})
}

func unescape(t *testing.T, text string) string {
	t.Helper()
	plain, err := url.QueryUnescape(text)
	if err != nil {
		t.Fatal(err)
	}
	return plain
}

// The value of a placeholder cannot break out of its JSON string.
func FuzzJSONTemplate(f *testing.F) {
	for _, value := range []string{`a`, `","x":"`, `\`, "\n\x00", "\xff", `{"a":1}`, `{test}`} {
		f.Add(`{"a":"x{test}y","b":["{test}","json:{test}"],"c":1.0}`, value)
	}
	f.Fuzz(func(t *testing.T, text, value string) {
		if !validJSON(text) {
			return
		}
		template, err := compileJSON(text)
		if err != nil {
			return
		}
		repl := transformReplacer()
		repl.Set("test", value)
		got := template.in(repl)
		if !validJSON(got) {
			t.Fatalf("%q with %q makes %q, which is no JSON", text, value, got)
		}
		if !strings.Contains(text, "json:") && !strings.Contains(text, "{test}") && !strings.ContainsAny(strings.Trim(text, "{}"), `{}\`) && got != text {
			t.Fatalf("%q became %q", text, got)
		}
	})
}
