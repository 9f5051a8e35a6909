package options

import "testing"

func TestSuggest(t *testing.T) {
	known := []string{"payment", "orders", "users", "delete", "rename"}
	for _, test := range []struct{ word, want string }{
		{"payments", ` (did you mean "payment"?)`},
		{"Payment", ` (did you mean "payment"?)`},
		{"paymnet", ` (did you mean "payment"?)`},
		{"order", ` (did you mean "orders"?)`},
		{"user", ` (did you mean "users"?)`},
		{"shipping", ""},
		{"", ""},
		{"remove", ` (did you mean "delete"?)`},
	} {
		if got := Suggest(test.word, known); got != test.want {
			t.Errorf("for %q: got %q, want %q", test.word, got, test.want)
		}
	}
}
