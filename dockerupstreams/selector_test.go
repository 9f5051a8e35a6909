package dockerupstreams

import (
	"net"
	"strconv"
	"strings"
	"testing"
)

// soundDial reports whether dial consists of one host and one port.
func soundDial(dial string) bool {
	host, port, err := net.SplitHostPort(dial)
	n, numErr := strconv.Atoi(port)
	return err == nil && numErr == nil && n > 0 && n < 65536 && host != "" && !strings.ContainsAny(host, "{}/ ")
}

func TestValidate(t *testing.T) {
	labels := map[string]string{"app": "web", "stage": ""}
	for _, c := range []struct {
		sel  Selector
		want string
	}{
		{Selector{MatchLabels: labels}, ""},
		{Selector{MatchLabels: labels, Port: 65535, Scheme: "h2c", Health: "any", Network: "x", HostPort: true}, ""},
		{Selector{}, "match_labels is required"},
		{Selector{MatchLabels: map[string]string{}}, "match_labels is required"},
		{Selector{MatchLabels: map[string]string{" ": "x"}}, "has no name: set a name"},
		{Selector{MatchLabels: map[string]string{"app!": "a"}}, "invalid match_labels app!=a: must be name=value, containers cannot be excluded by label"},
		{Selector{MatchLabels: map[string]string{"app": "*"}}, "invalid match_labels app=*: must be a value, there are no wildcards"},
		{Selector{MatchLabels: map[string]string{"app": "a-{http.request.host}"}}, "must not depend on the request"},
		{Selector{MatchLabels: map[string]string{"app": "{rgate.route}"}}, "must not depend on the request"},
		{Selector{MatchLabels: map[string]string{"{env.X}": "a"}}, "must not have placeholders in the name"},
		{Selector{MatchLabels: map[string]string{"app": `{"a": 1}`, "b": "a*", "c": "!", "d": "{env.X}"}}, ""},
		{Selector{MatchLabels: labels, Include: []string{"all"}}, `unknown include "all"`},
		{Selector{MatchLabels: labels, Port: -1}, "invalid port -1: must be from 1 to 65535"},
		{Selector{MatchLabels: labels, Port: 65536}, "invalid port 65536: must be from 1 to 65535"},
		{Selector{MatchLabels: labels, Scheme: "ftp"}, `unknown scheme "ftp": use http, https or h2c`},
		{Selector{MatchLabels: labels, Health: "sick"}, `unknown health "sick": use healthy or any`},
	} {
		err := c.sel.Validate()
		if (err == nil) != (c.want == "") || (err != nil && !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%+v: %v, want %q", c.sel, err, c.want)
		}
	}
}

func TestMatches(t *testing.T) {
	sel := Selector{MatchLabels: map[string]string{"app": "web", "stage": ""}}
	for _, c := range []struct {
		labels map[string]string
		want   bool
	}{
		{map[string]string{"app": "web", "stage": "", "more": "x"}, true},
		{map[string]string{"app": "web"}, false}, // a missing label does not equal an empty label
		{map[string]string{"app": "web", "stage": "x"}, false},
		{map[string]string{"app": "Web", "stage": ""}, false},
		{nil, false},
	} {
		if got := sel.matches(c.labels); got != c.want {
			t.Errorf("matches(%v) = %v, want %v", c.labels, got, c.want)
		}
	}
}

func TestKeysOfSelectors(t *testing.T) {
	a := Selector{MatchLabels: map[string]string{"a": "1", "b": "2"}}
	same := Selector{MatchLabels: map[string]string{"b": "2", "a": "1"}, Health: "healthy"}
	if a.key() != same.key() {
		t.Errorf("%s and %s mean the same", a.key(), same.key())
	}
	for _, other := range []Selector{
		{MatchLabels: map[string]string{"a": "1"}},
		{MatchLabels: a.MatchLabels, Port: 1},
		{MatchLabels: a.MatchLabels, Health: "any"},
		{MatchLabels: a.MatchLabels, HostPort: true},
		{MatchLabels: a.MatchLabels, onlyScheme: "http"},
	} {
		if a.key() == other.key() {
			t.Errorf("%+v and %+v do not mean the same", a, other)
		}
	}
}
