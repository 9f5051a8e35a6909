package httpcache

import (
	"net/http"
	"testing"
	"time"
)

func TestURLs(t *testing.T) {
	for text, want := range map[string]string{
		"http://A.Example":               "http://a.example/",
		"HTTPS://a.example.:443/b?c=d#e": "https://a.example/b?c=d",
		"http://a.example:443/":          "http://a.example:443/",
		"http://[::1]:80/a%2Fb":          "http://[::1]/a%2Fb",
		"http://[::1]/":                  "http://[::1]/",
		"/a":                             "",
		"a.example/b":                    "",
		"http://%zz/":                    "",
	} {
		if got, ok := NormalizeURL(text); got != want || ok != (want != "") {
			t.Errorf("%s: got %q", text, got)
		}
	}
	for _, c := range [][3]string{
		{"http://a.example/b/c", "/d", "http://a.example/d"},
		{"http://a.example/b/c", "d?e", "http://a.example/b/d?e"},
		{"http://a.example/b", "http://A.example:80/d", "http://a.example/d"},
		{"http://a.example/b", "//a.example.evil/d", ""},
		{"http://a.example/b", "https://a.example/d", ""},
		{"http://a.example/b", "http://a.example:81/d", ""},
		{"http://a.example/b", "http://b@a.example/d", "http://a.example/d"},
		{"http://a.example/b", "%zz", ""},
	} {
		if got := SameOrigin(c[0], c[1]); got != c[2] {
			t.Errorf("%s at %s: got %q, want %q", c[1], c[0], got, c[2])
		}
	}
}

func TestKeys(t *testing.T) {
	key := string(append(AppendKey(nil, "http", "a.example", "/b", "c"), "more"...))
	if got := urlOf(key); got != "http://a.example/b?c" {
		t.Errorf("the URL is %q", got)
	}
	if pathOf("http://a.example/b?c") != "/b?c" {
		t.Errorf("the path is %q", pathOf("http://a.example/b?c"))
	}
}

func TestETagLists(t *testing.T) {
	for list, want := range map[string]bool{
		`"a"`: true, `W/"a"`: true, `"b", "a"`: true, ` , "b",W/"a"`: true, `*`: true, `"b"`: false, ``: false, `a`: false, `"a`: false,
		`"b" "a"`: true, `x, "a"`: false, `"b,a"`: false,
	} {
		for _, etag := range []string{`"a"`, `W/"a"`} {
			if got := etagListed([]string{list}, etag); got != want {
				t.Errorf("%s in %s: %t", etag, list, got)
			}
		}
	}
	if etagListed([]string{`""`}, "") || !etagListed([]string{`"b"`, `"a"`}, `"a"`) {
		t.Error("absent tags, or several lines")
	}
}

func TestNormalization(t *testing.T) {
	for _, c := range []struct {
		name string
		a, b []string
		same bool
	}{
		{"Accept-Encoding", []string{"gzip, br"}, []string{"br", "GZIP"}, true},
		{"Accept-Encoding", []string{"gzip; q=1"}, []string{"gzip;q=1"}, true},
		{"Accept-Encoding", []string{"gzip"}, []string{"br"}, false},
		{"Accept-Language", []string{"de, en"}, []string{"DE,en"}, true},
		{"Accept-Language", []string{"de, en"}, []string{"en, de"}, false},
		{"X-A", []string{"a", "b"}, []string{"a, b"}, true},
		{"X-A", []string{" a "}, []string{"a"}, true},
		{"X-A", []string{"a,b"}, []string{"a, b"}, false},
		{"X-A", []string{"a"}, []string{"A"}, false},
		{"X-A", []string{""}, nil, false},
	} {
		a, b := http.Header{c.name: c.a}, http.Header{}
		if c.b != nil {
			b[c.name] = c.b
		}
		names := []string{c.name, "X-Z"}
		if same := variantText(a, names...) == variantText(b, names...); same != c.same {
			t.Errorf("%s: %q and %q: same is %t", c.name, c.a, c.b, same)
		}
	}
	// The encoding of fields is unambiguous.
	x, y := http.Header{"A": {"1"}, "B": {"2"}}, http.Header{"A": {"1\x00\x00\x00\x012"}}
	if variantText(x, "A", "B") == variantText(y, "A", "B") {
		t.Error("two requests have the same encoding")
	}
}

func variantText(header http.Header, names ...string) string {
	q := Request{Header: header}
	return string(q.appendVariant(nil, names))
}

// Changes to a served header do not affect the entry.
func TestServedHeadersAreCopies(t *testing.T) {
	now := time.Now()
	e := NewEntry(fresh, &Response{200, http.Header{"X-A": {"a", "b"}, "Last-Modified": nil}, now, now}, nil, nil)
	if _, lastModified := e.Validators(); lastModified != "" {
		t.Errorf("got %q", lastModified)
	}
	h := make(http.Header)
	e.WriteHeader(h, false, 0)
	h["X-A"][0] = "changed"
	h["X-A"] = append(h["X-A"], "c")
	again := make(http.Header)
	e.WriteHeader(again, false, 1)
	if got := again["X-A"]; len(got) != 2 || got[0] != "a" {
		t.Errorf("got %q", got)
	}
}

func TestDifference(t *testing.T) {
	before := http.Header{"Server": {"Caddy"}, "Vary": {"Origin"}, "X-Same": {"1"}, "X-Other": {"1"}}
	after := http.Header{"Vary": {"Origin", "Accept"}, "X-Same": {"1"}, "X-Other": {"2"}, "X-New": {"3"}}
	own, adds, drops := Difference(before, after)
	now := time.Now()
	e := NewEntry(fresh, &Response{200, own, now, now}, adds, drops)
	h := http.Header{"Server": {"Caddy"}, "Vary": {"Cookie"}, "X-Same": {"5"}, "X-Other": {"5"}}
	e.WriteHeader(h, false, 0)
	for name, want := range map[string]string{"Server": "", "Vary": "Cookie", "X-Same": "5", "X-Other": "2", "X-New": "3"} {
		if h.Get(name) != want {
			t.Errorf("%s is %q", name, h[name])
		}
	}
	if len(h["Vary"]) != 2 || h["Vary"][1] != "Accept" {
		t.Errorf("Vary is %q", h["Vary"])
	}
}
