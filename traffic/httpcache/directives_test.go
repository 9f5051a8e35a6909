package httpcache

import (
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

func TestDirectives(t *testing.T) {
	none := ParseDirectives(nil)
	for text, change := range map[string]func(*Directives){
		"":                      func(*Directives) {},
		" , ,":                  func(*Directives) {},
		"no-store":              func(d *Directives) { d.NoStore = true },
		"No-STORE , PUBLIC":     func(d *Directives) { d.NoStore, d.Public = true, true },
		"no-store=1, max-age=5": func(d *Directives) { d.NoStore, d.MaxAge = true, 5 },
		"no-store;private":      func(d *Directives) { d.NoStore = true },
		"no-store max-age=5":    func(d *Directives) { d.NoStore = true },
		"max-age = 5 ,private":  func(d *Directives) { d.MaxAge, d.Private = 5, true },
		`max-age="5"`:           func(d *Directives) { d.MaxAge = 5 },
		"max-age":               func(d *Directives) { d.MaxAge = 0 },
		"max-age=":              func(d *Directives) { d.MaxAge = 0 },
		"max-age=-1":            func(d *Directives) { d.MaxAge = 0 },
		"max-age=1.5":           func(d *Directives) { d.MaxAge = 0 },
		"max-age=1, max-age=2":  func(d *Directives) { d.MaxAge = 1 },
		"max-age=4294967296":    func(d *Directives) { d.MaxAge = mostSeconds },
		"s-maxage=5":            func(d *Directives) { d.SMaxAge = 5 },
		"max-stale":             func(d *Directives) { d.MaxStale = mostSeconds },
		"max-stale=5":           func(d *Directives) { d.MaxStale = 5 },
		"min-fresh=5":           func(d *Directives) { d.MinFresh = 5 },
		"stale-if-error=5, stale-while-revalidate=6": func(d *Directives) { d.StaleIfError, d.StaleWhileRevalidate = 5, 6 },
		`private="X-A, x-b" , max-age=5`: func(d *Directives) {
			d.Private, d.PrivateFields, d.MaxAge = true, []string{"X-A", "x-b"}, 5
		},
		`private="X-A", private`:         func(d *Directives) { d.Private = true },
		`private, private="X-A"`:         func(d *Directives) { d.Private = true },
		`private=""`:                     func(d *Directives) { d.Private = true },
		`no-cache="a", no-cache=b`:       func(d *Directives) { d.NoCache, d.NoCacheFields = true, []string{"a", "b"} },
		`x="no-store, private"`:          func(*Directives) {},
		`x="a\", no-store", public`:      func(d *Directives) { d.Public = true },
		`x="a, no-store`:                 func(d *Directives) { d.NoStore = true },
		`must-revalidate,"x",immutable`:  func(d *Directives) { d.MustRevalidate, d.Immutable = true, true },
		"proxy-revalidate,no-transform":  func(d *Directives) { d.ProxyRevalidate, d.NoTransform = true, true },
		"must-understand,only-if-cached": func(d *Directives) { d.MustUnderstand, d.OnlyIfCached = true, true },
	} {
		want := none
		change(&want)
		if got := ParseDirectives([]string{text}); !reflect.DeepEqual(got, want) {
			t.Errorf("%q: got %+v, want %+v", text, got, want)
		}
	}
	if d := ParseDirectives([]string{"max-age=5", "no-store"}); !d.NoStore || d.MaxAge != 5 {
		t.Errorf("two lines: got %+v", d)
	}
}

var naiveDirective = regexp.MustCompile(`(?s)^[ \t,]*([!#$%&'*+.^_|~0-9A-Za-z\x60-]*)(?:[ \t]*=[ \t]*("(?:[^"\\]|\\.)*"|[^,]*))?[^,]*,?`)

// naive parses directives with a regular expression and returns all of them.
func naive(line string) (all [][3]string) {
	for line != "" {
		m := naiveDirective.FindStringSubmatch(line)
		line = line[len(m[0]):]
		value := strings.TrimRight(m[2], " \t")
		if len(value) > 1 && value[0] == '"' && strings.HasSuffix(m[2], `"`) && naiveQuoted.MatchString(value) {
			value = naiveEscape.ReplaceAllString(value[1:len(value)-1], "$1")
		}
		all = append(all, [3]string{strings.ToLower(m[1]), value})
	}
	return all
}

var (
	naiveQuoted = regexp.MustCompile(`(?s)^"(?:[^"\\]|\\.)*"$`)
	naiveEscape = regexp.MustCompile(`(?s)\\(.)`)
)

// FuzzDirectives compares the parser with naive. It checks that malformed directives
// never hide directives that forbid storing.
func FuzzDirectives(f *testing.F) {
	for _, text := range []string{
		"", "no-store", `private="a, b", max-age=5`, `x="a\"b", max-age = 7`, `x="a, no-store`, "max-age=5;no-store", "a=b=c,d", `max-age="1"2,public`,
		"\tno-cache\t=\t\"\",,", "max-age=99999999999999999999",
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, line string) {
		d := ParseDirectives([]string{line})
		want := naive(line)
		has := func(name string) bool {
			return slices.ContainsFunc(want, func(one [3]string) bool { return one[0] == name })
		}
		for name, got := range map[string]bool{
			"no-store": d.NoStore, "private": d.Private, "no-cache": d.NoCache, "public": d.Public,
			"must-revalidate": d.MustRevalidate, "proxy-revalidate": d.ProxyRevalidate, "must-understand": d.MustUnderstand,
			"only-if-cached": d.OnlyIfCached, "no-transform": d.NoTransform, "immutable": d.Immutable,
		} {
			if got != has(name) {
				t.Errorf("%q: %s is %t; the naive parser has %q", line, name, got, want)
			}
		}
		for name, got := range map[string]Seconds{
			"max-age": d.MaxAge, "s-maxage": d.SMaxAge, "min-fresh": d.MinFresh,
			"stale-while-revalidate": d.StaleWhileRevalidate, "stale-if-error": d.StaleIfError,
		} {
			if expected := naiveSeconds(want, name); got != expected {
				t.Errorf("%q: %s is %d, want %d", line, name, got, expected)
			}
		}
	})
}

func naiveSeconds(all [][3]string, name string) Seconds {
	for _, one := range all {
		if one[0] != name {
			continue
		}
		if !regexp.MustCompile(`^[0-9]+$`).MatchString(one[1]) {
			return 0
		}
		n, err := strconv.ParseInt(one[1], 10, 64)
		if err != nil {
			return mostSeconds
		}
		return min(Seconds(n), mostSeconds)
	}
	return Absent
}

func BenchmarkDirectives(b *testing.B) {
	lines := []string{"public, max-age=60, stale-while-revalidate=30"}
	b.ReportAllocs()
	for b.Loop() {
		if d := ParseDirectives(lines); d.MaxAge != 60 {
			b.Fatal(d)
		}
	}
}
