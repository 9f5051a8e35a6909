package bandwidth

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/rgate/rgate/internal/options"
	"github.com/rgate/rgate/policy"
)

// quotaRequest returns a request prepared by Caddy's server, with or without a user.
func quotaRequest(w http.ResponseWriter, user string, headers ...string) *http.Request {
	repl := caddy.NewReplacer()
	r := caddyhttp.PrepareRequest(httptest.NewRequest(http.MethodGet, "/", nil), repl, w, nil)
	if user != "" {
		repl.Set("http.auth.user.id", user)
	}
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	return r
}

// startQuota provisions a quota outside of a gateway, without evaluating it.
func startQuota(t testing.TB, p *Quota) *Quota {
	t.Helper()
	ctx, cancel := caddy.NewContext(caddy.Context{Context: context.Background()})
	t.Cleanup(cancel)
	if err := p.Provision(ctx); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Cleanup(); err != nil {
			t.Error(err)
		}
	})
	return p
}

var quotaNext = caddyhttp.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) error {
	_, err := w.Write([]byte("passed"))
	return err
})

func askQuota(t testing.TB, p *Quota, user string, headers ...string) *httptest.ResponseRecorder {
	t.Helper()
	w := httptest.NewRecorder()
	if err := p.ServeHTTP(w, quotaRequest(w, user, headers...), quotaNext); err != nil {
		t.Fatal(err)
	}
	return w
}

func TestBlock(t *testing.T) {
	p := startQuota(t, &Quota{Egress: 1000, AtLimit: limitBlock})
	if got := askQuota(t, p, ""); got.Code != 200 || got.Body.String() != "passed" {
		t.Errorf("before the limit: got %d %q", got.Code, got.Body)
	}
	now := time.Now()
	p.now = func() time.Time { return now }
	p.shared.whole.Store(&limitState{until: now.Add(90*time.Second + time.Millisecond), limit: 1000, used: 1200})
	for accept, want := range map[string]string{"": "Too Many Requests\n", "application/json": `{"error":"Too Many Requests","status":429}`} {
		got := askQuota(t, p, "", "Accept", accept)
		header := got.Header()
		if got.Code != http.StatusTooManyRequests || got.Body.String() != want || header.Get("Retry-After") != "91" || header.Get("X-Quota-Reset") != "91" {
			t.Errorf("over the limit: got %d %q %v", got.Code, got.Body, header)
		}
		if header.Get("X-Quota-Limit") != "" || header.Get("X-Quota-Used") != "" {
			t.Errorf("strangers learn how much there is: %v", header)
		}
	}
	if policy.RefusalCount("quota") < 2 {
		t.Error("what was refused is not counted")
	}
	// The next period has started but is not evaluated yet.
	now = now.Add(90*time.Second + time.Millisecond)
	if got := askQuota(t, p, ""); got.Code != 200 {
		t.Errorf("in the next period: got %d", got.Code)
	}
}

func TestNotifyLetsPass(t *testing.T) {
	spec := specOf(t, "backend", "web", &Quota{Egress: 1000})
	start, end := spec.at(time.Now())
	if v := spec.evaluate(limits{2000}, spec.limits, start, end, nil); v != nil {
		t.Errorf("got %+v", v)
	}
}

func TestBlockedConsumer(t *testing.T) {
	p := startQuota(t, &Quota{Egress: 1000, AtLimit: limitBlock, Per: perConsumer})
	p.shared.each.Store(&map[string]*limitState{"bob": {until: time.Now().Add(time.Hour), limit: 1000, used: 1200}})
	for user, want := range map[string]int{"": 200, "alice": 200, "bob": 429} {
		got := askQuota(t, p, user)
		if got.Code != want {
			t.Errorf("%q: got %d, want %d", user, got.Code, want)
		}
		if header := got.Header(); want == 429 && (header.Get("X-Quota-Limit") != "1000" || header.Get("X-Quota-Used") != "1200" || header.Get("X-Quota-Reset") == "") {
			t.Errorf("%q: got %v", user, header)
		}
	}
}

func TestQuotaOptions(t *testing.T) {
	for _, c := range []struct {
		quota       Quota
		field, want string
	}{
		{Quota{}, "egress", "egress, ingress or total is required"},
		{Quota{Egress: 1, Period: "year"}, "period", "must be day, week, month or a number of days such as 30d"},
		{Quota{Egress: 1, TimeZone: "Berlin"}, "timezone", "use UTC or a name such as Europe/Berlin"},
		{Quota{Egress: 1, AtLimit: "stop"}, "at_limit", "use notify, throttle or block"},
		{Quota{Egress: 1, ThrottleRate: 5000}, "throttle_rate", "set at_limit: throttle"},
		{Quota{Egress: 1, ThrottleRate: 5, AtLimit: limitThrottle}, "throttle_rate", "must be at least 1KB per second"},
		{Quota{Egress: 1, Per: "user"}, "per", "use consumer"},
		{Quota{Egress: 1, Consumers: []QuotaConsumer{{Name: "a", Egress: 1}}}, "consumers", "set per: consumer"},
		{Quota{Per: perConsumer, Consumers: []QuotaConsumer{{Egress: 1}}}, "consumers[0].name", "name is required"},
		{Quota{Per: perConsumer, Consumers: []QuotaConsumer{{Name: "a", Egress: 1}, {Name: "a", Egress: 1}}}, "consumers[1].name", `duplicate consumer "a": remove one of the two`},
		{Quota{Per: perConsumer, Consumers: []QuotaConsumer{{Name: "a"}}}, "consumers[0].egress", `consumer "a" requires egress`},
		{Quota{Egress: 1, Thresholds: []int{80, 0}}, "thresholds[1]", "must be 1 to 1000"},
		{Quota{Egress: 1, Thresholds: []int{1001}}, "thresholds[0]", "must be 1 to 1000"},
		{Quota{Egress: 1, Thresholds: make([]int, 21)}, "thresholds", "at most 20"},
	} {
		err := c.quota.Check()
		var field interface{ Field() string }
		if err == nil || !strings.Contains(err.Error(), c.want) || !errors.As(err, &field) || field.Field() != c.field {
			t.Errorf("%+v: got %v, want %q at %s", c.quota, err, c.want, c.field)
		}
	}
	for _, fine := range []Quota{
		{Base: policy.Base{Disabled: true}}, {Egress: 1, Period: "30d"}, {Ingress: 1, Period: "week", TimeZone: "America/New_York"},
		{Per: perConsumer, Consumers: []QuotaConsumer{{Name: "a", Total: 1}}}, {Total: 1, AtLimit: limitThrottle, ThrottleRate: 1000},
	} {
		if err := fine.Check(); err != nil {
			t.Errorf("%+v: %v", fine, err)
		}
	}
}

func TestQuotaCaddyfile(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"quota 10GB", `{"egress":10000000000}`},
		{"quota 10GB week", `{"egress":10000000000,"period":"week"}`},
		{"quota off", `{"disabled":true}`},
		{"quota {\ningress 5MiB\ntotal 1TB\nperiod 30d\ntimezone Europe/Berlin\nat_limit throttle\nthrottle_rate 100KB\nthresholds 50 80 100\ncount_headers\nname uploads\n}",
			`{"period":"30d","ingress":5242880,"total":1000000000000,"timezone":"Europe/Berlin","at_limit":"throttle","throttle_rate":100000,"thresholds":[50,80,100],"count_headers":true,"name":"uploads"}`},
		{"quota 1GB {\nper consumer\nconsumers alice 10GB\nconsumers bob {\ntotal 1GB\n}\n}",
			`{"egress":1000000000,"per":"consumer","consumers":[{"name":"alice","egress":10000000000},{"name":"bob","total":1000000000}]}`},
		{"quota", "egress, ingress or total is required"},
		{"quota ten", "egress must be a size such as 512KB"},
		{"quota 10GB year", `invalid period "year": must be day, week, month`},
		{"quota 10GB month UTC", "unexpected argument"},
		{"quota {\negres 1\n}", "unrecognized subdirective 'egres'"},
	} {
		d := caddyfile.NewTestDispenser(c.text)
		d.Next()
		p := new(Quota)
		checkCaddyfile(t, c.text, c.want, p, options.Unmarshal(d, p))
	}
}

func TestNotifyCaddyfile(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"notify {\nwebhook https://a.example/\nlink https://b.example/\n}", `{"webhook":{"url":"https://a.example/"},"link":"https://b.example/"}`},
		{"notify {\nsmtp mail.example.com:587 {\nusername rgate\npassword {env.PASSWORD}\nfrom a@example.com\nto b@example.com c@example.com\ntimeout 10s\n}\n}",
			`{"smtp":{"address":"mail.example.com:587","username":"rgate","password":"{env.PASSWORD}","from":"a@example.com","to":["b@example.com","c@example.com"],"timeout":10000000000}}`},
		{"notify {\nwebhook {\nurl https://a.example/\nheaders Authorization \"Bearer x\"\n}\n}", `{"webhook":{"url":"https://a.example/","headers":{"Authorization":"Bearer x"}}}`},
		{"notify off", `{"disabled":true}`},
		{"notify", "notify has no effect"},
		{"notify {\nsmtp {\naddress mail.example.com\nfrom a@example.com\n}\n}", "to is required"},
	} {
		d := caddyfile.NewTestDispenser(c.text)
		d.Next()
		p := new(Notify)
		checkCaddyfile(t, c.text, c.want, p, options.Unmarshal(d, p))
	}
}

func checkCaddyfile(t *testing.T, text, want string, p any, err error) {
	t.Helper()
	if strings.HasPrefix(want, "{") {
		encoded, _ := json.Marshal(p)
		if err != nil || string(encoded) != want {
			t.Errorf("%s:\ngot  %s, %v\nwant %s", text, encoded, err, want)
		}
	} else if err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("%s: got %v, want %q", text, err, want)
	}
}

// BenchmarkQuota measures the overhead of a quota for a request below the limit.
func BenchmarkQuota(b *testing.B) {
	next := caddyhttp.HandlerFunc(func(http.ResponseWriter, *http.Request) error { return nil })
	w := httptest.NewRecorder()
	r := quotaRequest(w, "alice")
	run := func(b *testing.B, handler func() error) {
		b.ReportAllocs()
		for b.Loop() {
			_ = handler()
		}
	}
	b.Run("without", func(b *testing.B) { run(b, func() error { return next.ServeHTTP(w, r) }) })
	for name, p := range map[string]*Quota{
		"notify": {Egress: 1000}, "block": {Egress: 1000, AtLimit: limitBlock}, "consumer": {Egress: 1000, AtLimit: limitBlock, Per: perConsumer},
	} {
		p = startQuota(b, p)
		b.Run(name, func(b *testing.B) { run(b, func() error { return p.ServeHTTP(w, r, next) }) })
	}
}
