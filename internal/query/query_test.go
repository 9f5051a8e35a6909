package query

import (
	"net/url"
	"reflect"
	"slices"
	"strings"
	"testing"
)

func TestEveryParameterIsRead(t *testing.T) {
	for _, tc := range []struct {
		query  string
		want   url.Values
		clear  bool // all backends read the same parameters
		agreed bool // for the parameter admin
		hides  bool // the parameter admin
	}{
		{"", url.Values{}, true, true, false},
		{"admin=1&b=%20+", url.Values{"admin": {"1"}, "b": {"  "}}, true, true, false},
		{"%61dmin=%31&admin", url.Values{"admin": {"1", ""}}, true, true, false},
		{"admin=1&%", url.Values{"admin": {"1"}, "%": {""}}, false, true, false},
		{"admin=1&x=%zz", url.Values{"admin": {"1"}, "x": {"%zz"}}, false, true, false},
		{"admin=%31%", url.Values{"admin": {"1%"}}, false, false, false},
		{"admin=1;x", url.Values{"admin": {"1;x"}}, false, false, false},
		{"x=1;%61dmin=1", url.Values{"x": {"1;admin=1"}}, false, false, true},
		{"admin;x=1", url.Values{"admin;x": {"1"}}, false, false, true},
		{"x=1;y=2&admin=1", url.Values{"x": {"1;y=2"}, "admin": {"1"}}, false, true, false},
		{"x=%3Badmin=1", url.Values{"x": {";admin=1"}}, true, true, false},
	} {
		if got := Values(tc.query); !reflect.DeepEqual(got, tc.want) {
			t.Errorf("%s: read %v, want %v", tc.query, got, tc.want)
		}
		if readings := Readings(tc.query); (readings == nil) != tc.clear {
			t.Errorf("%s: got the readings %v", tc.query, readings)
		}
		if got := Agreed(tc.query, "admin"); got != tc.agreed {
			t.Errorf("%s: agreed: %t", tc.query, got)
		}
		if got := Hides(tc.query, "admin"); got != tc.hides {
			t.Errorf("%s: hides: %t", tc.query, got)
		}
	}
	if First("a=&a=x%&a=y", "a") != "x%" || Joined("a=1&b=2&a=3", "a") != "1,3" {
		t.Error("the values of one parameter are wrong")
	}
}

// FuzzQuery checks that package query finds all parameters that net/url finds, and no
// others if net/url returns no error.
func FuzzQuery(f *testing.F) {
	for _, query := range []string{"a=b&c", "%", "a;b=1", "a=%zz&b=%20+", "=&&=", "a=%F"} {
		f.Add(query)
	}
	f.Fuzz(func(t *testing.T, query string) {
		got := Values(query)
		want, err := url.ParseQuery(query)
		if err == nil && !reflect.DeepEqual(got, want) {
			t.Errorf("%q: read %v, net/url %v", query, got, want)
		}
		if isClear(query) != (err == nil) && strings.Count(query, "&") < 1000 {
			t.Errorf("%q: clear is %t, and net/url says %v", query, isClear(query), err)
		}
		for name, values := range want {
			for _, value := range values {
				if !slices.Contains(got[name], value) {
					t.Errorf("%q: %q=%q is not read", query, name, value)
				}
			}
		}
	})
}
