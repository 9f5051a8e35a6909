package httpcache

import (
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

// identity lists the identity fields in tests.
var identity = []string{"X-User-Id", "X-Consumer-*"}

func TestClassesOfFields(t *testing.T) {
	for class, names := range map[Class]string{
		Ignorable: `User-Agent Sec-Fetch-Site Sec-Fetch-Storage-Access Sec-Ch-Ua Sec-Ch-Ua-Full-Version-List Referer Cf-Connecting-Ipv6
			X-Datadog-Trace-Id Newrelic Postman-Token X-User-Agent X-Goog-Api-Client Sw8-Correlation X-B3-Traceid Fly-Region
			X-Real-Ip X-Forwarded-For Content-Type Service-Worker-Navigation-Preload X-Azure-Ref`,
		Negotiated: "Accept Accept-Encoding Sec-Ch-Prefers-Color-Scheme Cloudfront-Viewer-Country Hx-Request Next-Url X-Requested-With Fastly-Geo-Country",
		Credential: `Authorization Cookie X-Api-Key Apikey X-Auth-Token X-My-Access-Token Phpsessionid X-Session-Id X-Client-Secret
			Sec-Private-State-Token Sec-Private-State-Token-Lifetime Sec-Secure-Session-Response Sec-Browsing-Topics Remote-User
			X-Amzn-Oidc-Data X-Forwarded-Access-Token X-Forwarded-Client-Cert X-Arr-Clientcert X-Goog-Api-Key X-Csrf-Token Signature-Input
			X-Hub-Signature-256 X-Ms-Client-Principal-Id Last-Event-Id X-Akamai-Session-Info`,
		Forwarding: "X-Forwarded-Proto X-Forwarded-Host X-Forwarded-Port",
		Own:        "Range If-None-Match Cache-Control",
		Exclusive:  "Upgrade X-Original-Url Forwarded X-Forwarded-Prefix X-Host",
		Unknown:    "X-Org-Id X-Tenant X-User Sec-Unheard-Of Sec Cf-Unheard-Of X-Forwarded-Unheard-Of Sec-Ch-Unheard-Of X-B3 Accept-Other X-Envoy A",
	} {
		for name := range strings.FieldsSeq(names) {
			if got := ClassOf(name, false); got != class {
				t.Errorf("%s is %d, want %d", name, got, class)
			}
			if name != http.CanonicalHeaderKey(name) {
				t.Errorf("%s is not canonical", name)
			}
		}
	}
	for _, name := range []string{"Forwarded", "X-Forwarded-Prefix", "X-Forwarded-Server", "X-Forwarded-Ssl", "X-Forwarded-Scheme"} {
		if got := ClassOf(name, true); got != Ignorable {
			t.Errorf("%s of a trusted proxy is %d", name, got)
		}
	}
}

// At most one prefix matches a name, and no name is classified twice.
func TestListsOfFieldsAreConsistent(t *testing.T) {
	for i, p := range prefixes {
		if i > 0 && strings.HasPrefix(p.text, prefixes[i-1].text) {
			t.Errorf("%s begins with %s", p.text, prefixes[i-1].text)
		}
		if p.text != http.CanonicalHeaderKey(p.text) {
			t.Errorf("%s is not canonical", p.text)
		}
		if p.class != Credential && soundsSecret(p.text) {
			t.Errorf("all of %s are credentials", p.text)
		}
	}
	for name, class := range classes {
		if name != http.CanonicalHeaderKey(name) {
			t.Errorf("%s is not canonical", name)
		}
		if class != Credential && soundsSecret(name) {
			t.Errorf("%s is a credential", name)
		}
	}
}

func TestCoveredFields(t *testing.T) {
	r := Rules{Fields: NewFields([]string{"x-org-id", "X-Acme-*"}, []string{"Cookie"}, identity), Set: map[string]Source{
		"X-Version": {Constants: []string{"2"}}, "Authorization": {Constants: []string{"Bearer gateway"}}, "X-Who": {Credential: true},
		"User-Agent": {Constants: []string{"gateway"}}, "X-Mine": {Credential: true, Constants: []string{"a"}},
	}}
	for _, c := range []struct {
		name, value string
		want        Class
	}{
		{"X-Org-Id", "a", Ignorable}, {"X-Acme-A", "a", Ignorable}, {"Cookie", "a", Ignorable}, {"X-Acme", "a", Unknown},
		{"X-Version", "2", Constant}, {"X-Version", "3", Unknown}, {"Authorization", "Bearer gateway", Constant},
		{"Authorization", "Bearer a", Credential}, {"X-Who", "alice", Credential}, {"User-Agent", "gateway", Ignorable},
		{"X-Mine", "a", Constant}, {"X-Mine", "b", Credential},
	} {
		if got := r.Class(c.name, []string{c.value}); got != c.want {
			t.Errorf("%s: %s is %d, want %d", c.name, c.value, got, c.want)
		}
	}
	for _, name := range identity {
		if got := r.Class(strings.ReplaceAll(name, "*", "Username"), []string{"a"}); got != Credential {
			t.Errorf("%s is %d", name, got)
		}
	}
	all := NewFields([]string{"*"}, nil, identity)
	for name, want := range map[string]bool{
		"X-Org-Id": true, "X-Api-Key": true, "Authorization": false, "Cookie": false, "X-User-Id": false, "X-Consumer-Username": false,
		"Accept": false, "Range": false, "X-Original-Url": false, "X-Forwarded-Host": false,
	} {
		if got := all.Covers(name); got != want {
			t.Errorf("* covers %s: %t", name, got)
		}
	}
	if NewFields([]string{"b", "A"}, []string{"c"}, nil).ID() != NewFields([]string{"a", "B"}, nil, nil).ID() {
		t.Error("equal rules have different IDs")
	}
}

func TestCodings(t *testing.T) {
	for a, b := range map[string]string{
		"gzip, deflate, br": "br,deflate ,  gzip", "gzip;q=1.000, br": "br, gzip", "x-gzip": "GZIP", "gzip, gzip": "gzip", "gzip, sdch": "gzip",
		"gzip;q=0.50": "gzip; q=0.5", "": "sdch", "identity;q=0": "identity;q=0.0",
	} {
		if x, y := string(appendCodings(nil, strings.ToLower(a))), string(appendCodings(nil, strings.ToLower(b))); x != y {
			t.Errorf("%q and %q become %q and %q", a, b, x, y)
		}
	}
	distinct := []string{
		"gzip", "gzip;q=0", "gzip;q=0.5", "gzip, identity;q=0", "gzip, *", "gzip, *;q=0", "gzip, identity", "br", "", "gzip;q=2", "gzip;x=1", "gzip;q=0.0001", "dcb",
	}
	seen := make(map[string]string)
	for _, list := range distinct {
		text := string(appendCodings(nil, list))
		if other, ok := seen[text]; ok {
			t.Errorf("%q and %q are taken for one", list, other)
		}
		seen[text] = list
	}
}

func TestTimesOfStatuses(t *testing.T) {
	o := Options{TTL: time.Minute}
	for status, want := range map[int]time.Duration{200: time.Minute, 301: time.Minute, 404: 6 * time.Second, 410: 6 * time.Second, 501: 6 * time.Second} {
		if got, ok := o.ttl(status, false); got != want || !ok {
			t.Errorf("%d: %v %t", status, got, ok)
		}
	}
	o = Options{TTL: time.Hour, TTLByStatus: map[int]time.Duration{404: time.Second, 5: 2 * time.Second, 302: 3 * time.Second}}
	for status, want := range map[int]time.Duration{404: time.Second, 410: 10 * time.Second, 501: 2 * time.Second, 302: 3 * time.Second, 200: time.Hour} {
		if got, ok := o.ttl(status, false); got != want || !ok {
			t.Errorf("%d: %v %t", status, got, ok)
		}
	}
	for _, status := range []int{302, 403, 500, 503} {
		if _, ok := new(Options).ttl(status, false); ok {
			t.Errorf("%d may be stored", status)
		}
	}
}

// The result does not depend on the order of the fields.
func TestBlameIsTheFirstName(t *testing.T) {
	for range 20 {
		q := ReadRequest(&http.Request{Method: "GET", Header: http.Header{
			"X-B": {"1"}, "X-A": {"1"}, "X-Api-Key": {"1"}, "Authorization": {"1"}, "Accept": {"1"}, "X-C": {"1"},
		}}, false, Request{})
		for _, c := range []struct {
			vary       []string
			unknown    bool
			authorized bool
			want       string
		}{
			{nil, true, false, "Authorization"}, {nil, true, true, "X-A"}, {nil, false, true, "X-Api-Key"},
			{[]string{"x-a", "X-Api-Key"}, true, true, "X-B"}, {[]string{"X-Api-Key"}, false, true, ""},
			{[]string{"X-A, X-B,X-C, Authorization, X-Api-Key"}, true, false, "Authorization"},
		} {
			if got := q.blame(c.vary, c.unknown, c.authorized); got != c.want {
				t.Fatalf("%v: %q", c, got)
			}
		}
	}
	if !slices.IsSortedFunc(prefixes, func(a, b prefix) int { return strings.Compare(a.text, b.text) }) {
		t.Error("the prefixes are not sorted")
	}
}

func TestAnEmptyLineHidesNoAddress(t *testing.T) {
	q := Request{Rules: Rules{Trusted: true}, Received: &http.Request{RemoteAddr: "192.0.2.1:1"}}
	q.Header = http.Header{"X-Forwarded-For": {"198.51.100.7", ""}}
	if got, _ := q.sent("X-Forwarded-For"); !slices.Equal(got, []string{"198.51.100.7", "", "192.0.2.1"}) {
		t.Errorf("got %q, want the lines of the trusted peer and its address", got)
	}
}
