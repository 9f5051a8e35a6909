package coalesce

import (
	"net/http"
	"net/url"
	"reflect"
	"testing"

	"github.com/rgate/rgate/traffic/httpcache"
	"github.com/rgate/rgate/traffic/sharing"
)

// Two requests have equal keys if and only if all relevant parts are equal.
func FuzzSameRequest(f *testing.F) {
	f.Add("/a", "b", "X-A", "1", "/a", "b", "X-A", "1")
	f.Add("/a", "b=c", "Accept", "x", "/ab", "=c", "Accept", "x")
	f.Add("/\x00", "", "X-A", "1\x00", "/", "\x00", "X-A\x00", "1")
	f.Fuzz(func(t *testing.T, path1, query1, name1, value1, path2, query2, name2, value2 string) {
		request := func(path, query, name, value string) *http.Request {
			r := &http.Request{Method: "GET", Host: "example.com", Header: http.Header{}}
			r.URL = &url.URL{Path: path, RawQuery: query}
			r.Header[http.CanonicalHeaderKey(name)] = []string{value, value}
			return r
		}
		a, b := request(path1, query1, name1, value1), request(path2, query2, name2, value2)
		same := sharing.New("", nil)
		var keyA, keyB requestKey
		if !keyA.of(a, same) || !keyB.of(b, same) {
			return
		}
		drop := func(r *http.Request) http.Header {
			counts := http.Header{}
			for name, values := range r.Header {
				if httpcache.ClassOf(name, false) != httpcache.Ignorable && name != "Cache-Control" && name != "Pragma" {
					counts[name] = values
				}
			}
			return counts
		}
		equal := *a.URL == *b.URL && reflect.DeepEqual(drop(a), drop(b))
		if equal != keyA.equal(&keyB, b.Header) || equal != keyB.equal(&keyA, a.Header) {
			t.Errorf("equal is %t\n%+v\n%+v", equal, keyA, keyB)
		}
	})
}
