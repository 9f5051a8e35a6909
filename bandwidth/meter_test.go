package bandwidth

import (
	"encoding/json"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/rgate/rgate/bandwidth/store"
	"github.com/rgate/rgate/internal/options"
)

func TestMeterInCaddyfile(t *testing.T) {
	for text, want := range map[string]string{
		"rgate_bandwidth":        `{}`,
		"rgate_bandwidth off":    `{"disabled":true}`,
		"rgate_bandwidth /usage": `{"path":"/usage"}`,
		`rgate_bandwidth /usage {
			allow private_ranges
			store sqlite:///var/lib/rgate/b.db
			node  gw-1
			retention {
				minutes 3d
				hours   30d
			}
			flush_interval 2s
			gateway        edge
			kong_metrics
		}`: `{"path":"/usage","allow":["private_ranges"],"store":"sqlite:///var/lib/rgate/b.db","node":"gw-1",` +
			`"retention":{"minutes":259200000000000,"hours":2592000000000000},"flush_interval":2000000000,"kong_metrics":true,"gateway":"edge"}`,

		"rgate_bandwidth {\nstore mysql://x\n}":               "use sqlite:///var/lib/rgate/bandwidth.db or postgres://",
		"rgate_bandwidth usage":                               `invalid path "usage": use a path such as`,
		"rgate_bandwidth {\nflush_interval 1m\n}":             "must be 1s to 10s",
		"rgate_bandwidth {\nretention {\nminutes 1m\n}\n}":    "invalid minutes 1m0s: must be at least 1h",
		"rgate_bandwidth {\nretention {\nhours 1d\n}\n}":      "invalid hours 1d: must not be shorter than minutes, 7d",
		"rgate_bandwidth {\nretention {\ndays 30d\n}\n}":      "invalid days 30d: must not be shorter than hours, 90d",
		"rgate_bandwidth {\nretention {\nweeks 30d\n}\n}":     "use minutes, hours, days",
		"rgate_bandwidth {\nretention {\nhours -1h\n}\n}":     "invalid hours -1h0m0s: must not be negative",
		"rgate_bandwidth {\nretention {\nminutes 9000d\n}\n}": "",
	} {
		m := new(Meter)
		d := caddyfile.NewTestDispenser(text)
		d.Next()
		err := options.Unmarshal(d, m)
		if err != nil {
			if !strings.Contains(err.Error(), want) || strings.HasPrefix(want, "{") {
				t.Errorf("%s: %v", text, err)
			}
			continue
		}
		got, _ := json.Marshal(m)
		if want != "" && string(got) != want {
			t.Errorf("%s:\n got %s\nwant %s", text, got, want)
		}
	}
}

func TestRetentionFillsUp(t *testing.T) {
	hours := func(n int) caddy.Duration { return caddy.Duration(time.Duration(n) * time.Hour) }
	for name, test := range map[string]struct {
		Retention
		want store.Retention
	}{
		"nothing": {Retention{}, store.DefaultRetention},
		"longer minutes take the others along": {Retention{Minutes: hours(24 * 2000)},
			store.Retention{Minutes: 2000 * 24 * time.Hour, Hours: 2000 * 24 * time.Hour, Days: 2000 * 24 * time.Hour}},
		"all": {Retention{hours(1), hours(2), hours(3)}, store.Retention{Minutes: time.Hour, Hours: 2 * time.Hour, Days: 3 * time.Hour}},
	} {
		if got := test.filled(); got != test.want {
			t.Errorf("%s: %+v, want %+v", name, got, test.want)
		}
	}
}

// Placeholder values may contain any character, and errors do not quote them.
func TestStoreIsFilledIn(t *testing.T) {
	t.Setenv("RGATE_TEST_PASSWORD", "p@ss/w rd")
	t.Setenv("RGATE_TEST_EMPTY", "")
	for store, want := range map[string]string{
		"postgres://u:{env.RGATE_TEST_PASSWORD}@h/d": "postgres://u:p%40ss%2Fw%20rd@h/d",
		"postgres://u:{env.RGATE_TEST_EMPTY}@h/d":    "{env.RGATE_TEST_EMPTY} in store is empty: set its value",
		"postgres://u@h/{env.RGATE_TEST_EMPTY}":      "set the value or remove the placeholder",
	} {
		got, err := (&Meter{Store: store}).fillStore()
		if err != nil {
			got = err.Error()
		}
		if !strings.Contains(got, want) || err != nil && strings.Contains(got, "p@ss") {
			t.Errorf("%s: %s", store, got)
		}
	}
	at, err := store.ParseAddress(defaultStore())
	if err != nil || !strings.HasSuffix(at.Path, "/rgate/bandwidth.db") {
		t.Errorf("the default is %q, %v", at.Path, err)
	}
}

func TestDefaultNode(t *testing.T) {
	host, err := os.Hostname()
	must(t, err)
	if got := defaultNode("rgate"); got != host {
		t.Errorf("got %q", got)
	}
	if got := defaultNode("edge"); got != host+"/edge" {
		t.Errorf("got %q", got)
	}
}

// A meter is provisioned while its database is unreachable.
func TestMeterDoesNotWaitForItsStore(t *testing.T) {
	ctx, cancel := caddy.NewContext(caddy.Context{Context: t.Context()})
	defer cancel()
	m := &Meter{Gateway: t.Name(), Store: "postgres://u:p@192.0.2.1:1/d"} // does not respond
	began := time.Now()
	must(t, m.Provision(ctx))
	l := store.For(t.Name())
	if took := time.Since(began); l == nil || l != m.ledger || took > 2*time.Second {
		t.Errorf("after %s, the ledger is %v", took, l)
	}
	must(t, m.Cleanup())
	if store.For(t.Name()) != nil {
		t.Error("the ledger is still there")
	}
}

func TestMeterWithWrongStoreIsRefused(t *testing.T) {
	ctx, cancel := caddy.NewContext(caddy.Context{Context: t.Context()})
	defer cancel()
	t.Setenv("RGATE_TEST_STORE", "mysql://u:secret@h/d")
	m := &Meter{Gateway: t.Name(), Store: "{env.RGATE_TEST_STORE}"}
	err := m.Provision(ctx)
	var option *options.Error
	if !errors.As(err, &option) || option.Field() != "store" || strings.Contains(err.Error(), "secret") {
		t.Errorf("got %v", err)
	}
	must(t, m.Cleanup())
}
