package httpx

import (
	"fmt"
	"net/http"
	"testing"
)

func TestHeaderMark(t *testing.T) {
	outer := http.Header{"Server": {"Caddy"}, "Vary": {"Origin"}, "X-Own": {"1"}, "X-Gone": {"x"}, "A": {"1"}, "B": {"1"}, "C": {"1"}, "D": {"1"}}
	var mark HeaderMark
	mark.Set(outer)
	delete(outer, "X-Gone")
	outer.Set("Server", "backend")
	outer.Add("Vary", "Accept")
	outer["D"] = nil
	outer.Set("Content-Type", "text/x")
	change := mark.Change(outer)

	other := http.Header{"Server": {"Caddy"}, "Vary": {"Origin"}, "X-Own": {"2"}, "X-Gone": {"x"}, "A": {"2"}}
	change.Apply(other)
	want := http.Header{"Server": {"backend"}, "Vary": {"Origin", "Accept"}, "X-Own": {"2"}, "A": {"2"}, "Content-Type": {"text/x"}, "D": nil}
	if fmt.Sprint(other) != fmt.Sprint(want) {
		t.Errorf("got %v, want %v", other, want)
	}
	other.Add("Content-Type", "y") // must not change other values
	other["Vary"][1] = "z"
	change.Apply(http.Header{})
	if outer.Get("Content-Type") != "text/x" || outer["Vary"][1] != "Accept" || change.Added[0].Values[0] != "Accept" {
		t.Error("two headers share values")
	}
	mark.Restore(outer)
	if outer.Get("Server") != "Caddy" || outer.Get("X-Gone") != "x" || len(outer) != 8 || fmt.Sprint(outer["D"]) != "[1]" {
		t.Errorf("restored: %v", outer)
	}
}
