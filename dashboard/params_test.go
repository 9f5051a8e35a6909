package dashboard

import (
	"strings"
	"testing"
)

func TestQueriesAreRead(t *testing.T) {
	for raw, want := range map[string]string{
		"":                               "?range=1h",
		"range=30d":                      "?range=30d",
		"service=a&route=%2Fb&gateway=g": "?gateway=g&range=1h&route=%2Fb&service=a",
		"range=5m&refresh=off":           "?range=5m&refresh=off",
		"refresh=on":                     "?range=1h",
		"service=":                       "?range=1h",
		"service=%3Cscript%3E&range=24h": "?range=24h&service=%3Cscript%3E",
	} {
		a, err := parseParams(raw)
		if err != nil || a.query() != want {
			t.Errorf("%q: got %q, %v, want %q", raw, a.query(), err, want)
		}
		again, err := parseParams(strings.TrimPrefix(a.query(), "?"))
		if err != nil || again != a {
			t.Errorf("%q: reading it again gives %+v, %v", raw, again, err)
		}
	}
	for raw, want := range map[string]string{
		"range=2h":          `unknown range "2h": use 5m, 1h, 6h, 24h, 7d, 30d`,
		"range=":            `unknown range "": use 5m, 1h, 6h, 24h, 7d, 30d`,
		"range=5m&range=1h": `duplicate parameter range: must be set once, not 2 times`,
		"foo=1":             `unknown parameter "foo": use range, gateway, service, route, refresh`,
		"rnge=1h":           `unknown parameter "rnge" (did you mean "range"?): use range, gateway, service, route, refresh`,
		"refresh=maybe":     `invalid refresh "maybe": must be on or off`,
		"range=%z":          `invalid query: invalid URL escape "%z"`,
	} {
		if _, err := parseParams(raw); err == nil || err.Error() != want {
			t.Errorf("%q: got %v, want %s", raw, err, want)
		}
	}
}

func FuzzQueries(f *testing.F) {
	f.Add("range=5m&service=a")
	f.Add("route=%2F&refresh=off;x")
	f.Fuzz(func(t *testing.T, raw string) {
		a, err := parseParams(raw)
		if err != nil {
			return
		}
		if again, err := parseParams(strings.TrimPrefix(a.query(), "?")); err != nil || again != a {
			t.Errorf("%q: reading it again gives %+v, %v", raw, again, err)
		}
	})
}
