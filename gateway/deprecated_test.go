package gateway

import (
	"fmt"
	"net/http"
	"slices"
	"testing"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/rgate/rgate/internal/testkit"
)

func TestDeprecation(t *testing.T) {
	address, _ := testkit.Backend(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/old/own" {
			w.Header().Set("Deprecation", "@1")
			w.Header().Set("Sunset", "Thu, 01 Jan 1970 00:00:00 GMT")
			w.Header().Set("Link", `</more>; rel="next"`)
		}
	})
	g := start(t, fmt.Sprintf(`{
		"groups": [{"deprecated": {"since": "2026-03-01", "sunset": "2026-12-31T12:00:00+02:00", "link": "https://example.com/v2?a,b"},
			"routes": [
				{"path_prefix": "/old", "backend": "b"},
				{"path_prefix": "/down", "backend": "down"},
				{"path_prefix": "/gone", "backend": "b", "handle": [{"handler": "static_response", "status_code": 410}]},
				{"path_prefix": "/error", "backend": "b", "handle": [{"handler": "error", "status_code": 403}]},
				{"path_prefix": "/split", "backends": [{"name": "b", "weight": 1}, {"name": "down", "weight": 1}]},
				{"path_prefix": "/sooner", "backend": "b", "deprecated": {"sunset": "2026-06-30"}},
				{"path_prefix": "/some-day", "backend": "b", "deprecated": {}}
			]}],
		"routes": [{"path_prefix": "/new", "backend": "b"}],
		"backends": [{"name": "b", "dial": [%s]}, {"name": "down", "dial": [%s]}]
	}`, quoted(address), quoted(deadAddress(t))))
	url := serve(t, g, &caddyhttp.Server{})

	const since, sunset = "@1772323200", "Thu, 31 Dec 2026 10:00:00 GMT"
	link := `<https://example.com/v2?a,b>; rel="deprecation"; type="text/html"`
	for _, test := range []struct {
		path                  string
		status                int
		since, sunset, linked []string
	}{
		{"/old", 200, []string{since}, []string{sunset}, []string{link}},
		{"/old/own", 200, []string{since}, []string{sunset}, []string{link, `</more>; rel="next"`}},
		{"/down", 503, []string{since}, []string{sunset}, []string{link}},
		{"/gone", 410, []string{since}, []string{sunset}, []string{link}},
		{"/error", 403, []string{since}, []string{sunset}, []string{link}},
		{"/split", 0, []string{since}, []string{sunset}, []string{link}},
		{"/sooner", 200, []string{"@0"}, []string{"Tue, 30 Jun 2026 00:00:00 GMT"}, nil},
		{"/some-day", 200, []string{"@0"}, nil, nil},
		{"/new", 200, nil, nil, nil},
		{"/nowhere", 404, nil, nil, nil},
	} {
		for range 3 { // header values of one response must not appear in the next
			got := get(t, "GET", url+test.path)
			if test.status != 0 && got.status != test.status {
				t.Errorf("%s: got %d, want %d", test.path, got.status, test.status)
			}
			for name, want := range map[string][]string{"Deprecation": test.since, "Sunset": test.sunset, "Link": test.linked} {
				if have := got.header.Values(name); !slices.Equal(have, want) {
					t.Errorf("%s: %s is %q, want %q", test.path, name, have, want)
				}
			}
		}
	}
}

func TestInvalidDeprecations(t *testing.T) {
	for path, wrong := range map[string]*Deprecation{
		"since":  {Since: "31.12.2026"},
		"sunset": {Since: "2026-12-31", Sunset: "2026-12-30"},
		"link":   {Link: "https://example.com/a b"},
	} {
		if fields, problem := wrong.header(); problem == nil || problem.Path != path || fields != nil {
			t.Errorf("%+v: got %v, %v; want a problem with %s", wrong, fields, problem, path)
		}
	}
}
