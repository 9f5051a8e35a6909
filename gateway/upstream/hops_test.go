package upstream

import (
	"net/http/httptest"
	"strings"
	"testing"
)

func TestTakeHops(t *testing.T) {
	const other, third = "00112233445566ff=4", "ffeeddccbbaa9988=65535"
	for field, want := range map[string]struct {
		before int
		next   string
	}{
		"":                                  {0, processID + "1"},
		processID + "1":                     {1, processID + "2"},
		processID + "4, " + processID + "2": {4, processID + "5"},
		processID + "nonsense":              {0, processID + "1"},
		other + "," + third:                 {0, other + ", " + third + ", " + processID + "1"},
		other + ", " + processID + "5":      {5, other + ", " + processID + "6"},
		"a=1, =, 00112233445566ff, 00112233445566fx=1, 00112233445566ff=-1, \r": {0, processID + "1"},
		strings.Repeat(other+",", 1000):                                         {0, strings.Repeat(other+", ", maxHopEntries) + processID + "1"},
	} {
		r := httptest.NewRequest("GET", "/", nil)
		if field != "" {
			r.Header.Set(hopsField, field)
		}
		before, next := TakeHops(r)
		if before != want.before || len(next) != 1 || next[0] != want.next {
			t.Errorf("%.80q: got %d and %q, want %+v", field, before, next, want)
		}
		if r.Header[hopsField] != nil {
			t.Errorf("%.80q: the field is left for handlers", field)
		}
	}
}
