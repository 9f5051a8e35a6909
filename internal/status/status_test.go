package status

import (
	"slices"
	"testing"
)

func TestStatesArePublishedUntilTheyEnd(t *testing.T) {
	var kind Kind[string, string]
	if got := kind.All("web"); got != nil {
		t.Errorf("before: %v", got)
	}
	endA, endB := kind.Publish("web", func() string { return "a" }), kind.Publish("web", func() string { return "b" })
	if got := kind.All("web"); len(got) != 2 {
		t.Errorf("of two: %v", got)
	}
	endA()
	if got := kind.All("web"); !slices.Equal(got, []string{"b"}) || !slices.Equal(kind.Keys(), []string{"web"}) {
		t.Errorf("of the other one: %v", got)
	}
	endB()
	if got := kind.All("web"); got != nil || kind.Keys() != nil {
		t.Errorf("after: %v", got)
	}
}
