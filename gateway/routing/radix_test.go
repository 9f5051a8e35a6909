package routing

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
)

// prefixesOf returns the keys that the tree finds as prefixes of s, the longest first.
func prefixesOf(t *tree[string], s string) (found []string) {
	for i := t.longest(s); i != none; i = t.leaves[i].outer {
		found = append(found, t.leaves[i].value)
	}
	return found
}

func newStringTree(keys []string) *tree[string] {
	values := make(map[string]string, len(keys))
	for _, key := range keys {
		values[key] = key
	}
	return newTree(values)
}

// naivePrefixes compares all keys to find the prefixes of s, the longest first.
func naivePrefixes(keys []string, s string) (found []string) {
	for n := len(s); n >= 0; n-- {
		for _, key := range keys {
			if key == s[:n] {
				found = append(found, key)
				break
			}
		}
	}
	return found
}

func TestTreeFindsEveryPrefixLongestFirst(t *testing.T) {
	keys := []string{"/", "/api", "/api/payment", "/api/pay", "/api/orders", "/b", "/api/payment/x/y", "/é"}
	tree := newStringTree(keys)
	for _, path := range []string{
		"", "/", "/a", "/api", "/api/", "/api/pa", "/api/pay", "/api/paymen", "/api/payment",
		"/api/paymentX", "/api/payment/x/y/z", "/apj", "/b/c", "x", "/\xc3", "/é/1",
	} {
		got, want := prefixesOf(tree, path), naivePrefixes(keys, path)
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("prefixes of %q: got %q, want %q", path, got, want)
		}
	}
}

func TestEmptyTreeFindsNothing(t *testing.T) {
	if got := newStringTree(nil).longest("/anything"); got != none {
		t.Errorf("leaf %d found in an empty tree", got)
	}
}

func FuzzTree(f *testing.F) {
	f.Add("/api\n/api/pay\n/api/payment\n/", "/api/payments")
	f.Add("a\nab\nabc\nb", "abd")
	f.Add("", "x")
	f.Fuzz(func(t *testing.T, list, path string) {
		keys := strings.Split(list, "\n")
		got, want := prefixesOf(newStringTree(keys), path), naivePrefixes(keys, path)
		if fmt.Sprintf("%q", got) != fmt.Sprintf("%q", want) {
			t.Errorf("prefixes of %q among %q: got %q, want %q", path, keys, got, want)
		}
	})
}

func BenchmarkRouteLookup(b *testing.B) {
	for _, n := range []int{100, 10_000, 100_000, 1_000_000} {
		b.Run(fmt.Sprintf("routes=%d", n), func(b *testing.B) {
			values := make(map[string]int, n)
			keys := make([]string, n)
			for i := range keys {
				keys[i] = fmt.Sprintf("/api/v%d/service-%d/resource", i%3+1, i)
				values[keys[i]] = i
			}
			// The number of paths is independent of the number of routes, so that only
			// the search differs.
			paths := make([]string, 4096)
			for i := range paths {
				paths[i] = keys[i*n/len(paths)] + "/42"
			}
			rand.Shuffle(len(paths), func(i, j int) { paths[i], paths[j] = paths[j], paths[i] })
			tree := newTree(values)
			b.ReportAllocs()
			b.ResetTimer()
			for i := range b.N {
				if tree.longest(paths[i%len(paths)]) == none {
					b.Fatal("no route found")
				}
			}
		})
	}
}
