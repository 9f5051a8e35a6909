package traffic

import (
	"fmt"
	"net/http"
	"reflect"
	"testing"

	"github.com/rgate/rgate/traffic/httpcache"
)

// Two requests have one key if they are the same in all that counts, and never
// otherwise.
func FuzzSameRequest(f *testing.F) {
	f.Add("/a", "b", "X-A", "1", "/a", "b", "X-A", "1")
	f.Add("/a", "b=c", "Accept", "x", "/ab", "=c", "Accept", "x")
	f.Add("/\x00", "", "X-A", "1\x00", "/", "\x00", "X-A\x00", "1")
	f.Fuzz(func(t *testing.T, path1, query1, name1, value1, path2, query2, name2, value2 string) {
		request := func(path, query, name, value string) *http.Request {
			r := &http.Request{Method: "GET", Host: "example.com", Header: http.Header{}}
			r.URL = mustURL(path, query)
			r.Header[http.CanonicalHeaderKey(name)] = []string{value, value}
			return r
		}
		a, b := request(path1, query1, name1, value1), request(path2, query2, name2, value2)
		same := newSharing("", nil)
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

// What was done to one header can be done to another.
func TestHeaderMark(t *testing.T) {
	outer := http.Header{"Server": {"Caddy"}, "Vary": {"Origin"}, "X-Own": {"1"}, "X-Gone": {"x"}, "A": {"1"}, "B": {"1"}, "C": {"1"}, "D": {"1"}}
	var mark headerMark
	mark.set(outer)
	delete(outer, "X-Gone")
	outer.Set("Server", "backend")
	outer.Add("Vary", "Accept")
	outer["D"] = nil
	outer.Set("Content-Type", "text/x")
	change := mark.change(outer)

	other := http.Header{"Server": {"Caddy"}, "Vary": {"Origin"}, "X-Own": {"2"}, "X-Gone": {"x"}, "A": {"2"}}
	change.apply(other)
	want := http.Header{"Server": {"backend"}, "Vary": {"Origin", "Accept"}, "X-Own": {"2"}, "A": {"2"}, "Content-Type": {"text/x"}, "D": nil}
	if fmt.Sprint(other) != fmt.Sprint(want) {
		t.Errorf("got %v, want %v", other, want)
	}
	other.Add("Content-Type", "y") // is nobody else's
	other["Vary"][1] = "z"
	change.apply(http.Header{})
	if outer.Get("Content-Type") != "text/x" || outer["Vary"][1] != "Accept" || change.added[0].values[0] != "Accept" {
		t.Error("two headers share values")
	}
	mark.restore(outer)
	if outer.Get("Server") != "Caddy" || outer.Get("X-Gone") != "x" || len(outer) != 8 || fmt.Sprint(outer["D"]) != "[1]" {
		t.Errorf("restored: %v", outer)
	}
}
