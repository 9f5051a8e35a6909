package logging

import "testing"

func TestValuesAreFirstOnceAndOnlySoManyAreKept(t *testing.T) {
	var once OnceEach[string]
	for i, test := range []struct {
		value string
		want  bool
	}{{"a", true}, {"a", false}, {"b", true}, {"c", false}, {"b", false}} {
		if got := once.First(test.value, 2); got != test.want {
			t.Errorf("%d: First(%q) is %v, want %v", i, test.value, got, test.want)
		}
	}
}
