package ipfilter

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/rgate/rgate/internal/options"
	"github.com/rgate/rgate/internal/testkit"
	"github.com/rgate/rgate/policy"
)

func TestIPFilter(t *testing.T) {
	allow := func(allow string) IPFilter { return IPFilter{Allow: strings.Fields(allow)} }
	deny := func(deny string) IPFilter { return IPFilter{Deny: strings.Fields(deny)} }
	both := IPFilter{Allow: []string{"203.0.113.0/24"}, Deny: []string{"203.0.113.7"}}
	for _, tc := range []struct {
		filter  IPFilter
		address string
		status  int
	}{
		{allow("203.0.113.0/24"), "203.0.113.9", 200},
		{allow("203.0.113.0/24"), "203.0.114.9", 403},
		{allow("203.0.113.0/24"), "::ffff:203.0.113.9", 200},
		{allow("203.0.113.0/24"), "203.0.113.9:1234", 200},
		{allow("2001:db8::/32"), "2001:db8::1", 200},
		{allow("2001:db8::/32"), "[2001:db8::1]:1234", 200},
		{allow("fe80::/10"), "fe80::1%eth0", 200},
		{allow("2001:db8::/32"), "203.0.113.9", 403},
		{allow("203.0.113.0/24"), "", 403},
		{allow("0.0.0.0/0 ::/0"), "@", 403},
		{allow("private_ranges"), "10.255.255.255", 200},
		{allow("private_ranges"), "172.31.0.1", 200},
		{allow("private_ranges"), "172.32.0.1", 403},
		{allow("private_ranges"), "192.168.1.1", 200},
		{allow("private_ranges"), "127.9.9.9", 200},
		{allow("private_ranges"), "::1", 200},
		{allow("private_ranges"), "fd12::1", 200},
		{allow("private_ranges"), "fc00::1", 403},
		{allow("private_ranges 203.0.113.7"), "203.0.113.7", 200},
		{deny("203.0.113.0/24"), "203.0.113.9", 403},
		{deny("203.0.113.0/24"), "::ffff:203.0.113.9", 403},
		{deny("203.0.113.0/24"), "203.0.114.9", 200},
		{deny("203.0.113.0/24"), "2001:db8::1", 200},
		{deny("203.0.113.0/24"), "", 403},
		{deny("private_ranges"), "127.0.0.1", 403},
		{both, "203.0.113.8", 200},
		{both, "203.0.113.7", 403},
		{both, "203.0.114.7", 403},
		{IPFilter{Base: policy.Base{Disabled: true}}, "", 200},
	} {
		p := tc.filter
		testkit.Provision(t, &p)
		r := testkit.Request("/", "X-Forwarded-For", "203.0.113.9") // ignored
		caddyhttp.SetVar(r.Context(), caddyhttp.ClientIPVarKey, tc.address)
		if w, seen := testkit.Serve(t, &p, r); w.Code != tc.status || (seen != nil) != (tc.status == 200) {
			t.Errorf("%q with allow %q and deny %q: got %d, want %d", tc.address, p.Allow, p.Deny, w.Code, tc.status)
		}
	}
}

func TestPrivateRangesAreCaddys(t *testing.T) {
	if got, want := len(privatePrefixes()), len(caddyhttp.PrivateRangesCIDR()); got != want || want == 0 {
		t.Errorf("there are %d, want %d", got, want)
	}
}

func TestIPFilterErrors(t *testing.T) {
	for _, tc := range []struct {
		filter       IPFilter
		field, wrong string
	}{
		{IPFilter{}, "allow", "ip_filter has no effect: set allow or deny"},
		{IPFilter{Allow: []string{"10.0.0.0/8", "10.0.0.1/8"}}, "allow[1]", `invalid address "10.0.0.1/8" in allow: use 10.0.0.0/8 for the whole range`},
		{IPFilter{Deny: []string{"localhost"}}, "deny[0]", `invalid address "localhost" in deny`},
		{IPFilter{Deny: []string{"private_range"}}, "deny[0]", `(did you mean "private_ranges"?)`},
	} {
		err := tc.filter.Check()
		var about *options.Error
		if !errors.As(err, &about) || about.Field() != tc.field || !strings.Contains(err.Error(), tc.wrong) {
			t.Errorf("%+v: got %v, want one about %s with %q", tc.filter, err, tc.field, tc.wrong)
		}
		if err := testkit.TryProvision(t, &tc.filter); err == nil || !strings.Contains(err.Error(), tc.wrong) {
			t.Errorf("%+v: provisioning gives %v", tc.filter, err)
		}
	}
}

func TestIPFilterCaddyfile(t *testing.T) {
	for text, want := range map[string]string{
		"rgate_ip_filter private_ranges 203.0.113.7":                             "[private_ranges 203.0.113.7] []",
		"rgate_ip_filter {\nallow private_ranges\nallow ::1\ndeny 10.0.0.0/8\n}": "[private_ranges ::1] [10.0.0.0/8]",
	} {
		var p IPFilter
		if err := options.Unmarshal(testkit.Dispenser(text), &p); err != nil || fmt.Sprint(p.Allow, p.Deny) != want {
			t.Errorf("%s: got %v %v and %v, want %s", text, p.Allow, p.Deny, err, want)
		}
	}
	for text, want := range map[string]string{
		"rgate_ip_filter": "ip_filter has no effect",
		"rgate_ip_filter {\nallow ::1\ndeny 10.0.0.1/8\n}": "or 10.0.0.1 for the single address, at Testfile:3",
	} {
		if err := options.Unmarshal(testkit.Dispenser(text), new(IPFilter)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", text, err, want)
		}
	}
}
