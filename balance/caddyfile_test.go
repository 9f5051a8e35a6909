package balance

import (
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/rgate/rgate/internal/placeholder"
)

func TestOptions(t *testing.T) {
	for text, want := range map[string]*RingHash{
		"ring_hash":                            {},
		"ring_hash {http.vars.client_ip}":      {Key: placeholder.ClientIP},
		"ring_hash {header} {\n}":              {Key: "{header}"},
		"ring_hash {\nvirtual_nodes 300\n}":    {VirtualNodes: 300},
		"ring_hash {a} {\nload_factor 1.25\n}": {Key: "{a}", LoadFactor: 1.25},
	} {
		var p RingHash
		if err := p.UnmarshalCaddyfile(caddyfile.NewTestDispenser(text)); err != nil {
			t.Errorf("%s: %v", text, err)
		}
		if p.Key != want.Key || p.VirtualNodes != want.VirtualNodes || p.LoadFactor != want.LoadFactor {
			t.Errorf("%s: got %q, %d, %v", text, p.Key, p.VirtualNodes, p.LoadFactor)
		}
	}
	for text, want := range map[string]string{
		"ring_hash X-User":                                 `invalid key "X-User": must contain a placeholder, because otherwise all requests go to one upstream: use a key such as {http.request.header.X-User}`,
		"ring_hash {a} {b}":                                "wrong argument count",
		"ring_hash {\nvirtual_nodes\n}":                    "wrong argument count",
		"ring_hash {\nvirtual_nodes 1 2\n}":                "wrong argument count",
		"ring_hash {\nvirtual_nodes 0\n}":                  "invalid virtual_nodes 0: must be from 1 to 10000",
		"ring_hash {\nvirtual_nodes 10001\n}":              "invalid virtual_nodes 10001: must be from 1 to 10000",
		"ring_hash {\nvirtual_nodes many\n}":               `invalid virtual_nodes "many": must be a whole number from 1 to 10000`,
		"ring_hash {\nvirtual_nodes 1\nvirtual_nodes 2\n}": "virtual_nodes is set twice: remove one of the two",
		"ring_hash {\nload_factor 1\n}":                    "invalid load_factor 1: must be above 1, such as 1.25, or 0 for no bound",
		"ring_hash {\nload_factor NaN\n}":                  "invalid load_factor NaN: must be",
		"ring_hash {\nload_factor +Inf\n}":                 "invalid load_factor +Inf: must be",
		"ring_hash {\nload_factor 125%\n}":                 `invalid load_factor "125%": must be a number above 1, such as 1.25`,
		"ring_hash {\nkeys X\n}":                           "unrecognized option 'keys': use virtual_nodes or load_factor",
		"least_latency now":                                "wrong argument count",
		"least_latency {\nhalf_life 1s\n}":                 "unrecognized option 'half_life': least_latency has no options",
	} {
		d := caddyfile.NewTestDispenser(text)
		policy := caddyfile.Unmarshaler(new(RingHash))
		if strings.HasPrefix(text, "least_latency") {
			policy = new(LeastLatency)
		}
		if err := policy.UnmarshalCaddyfile(d); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got error %v, want %s", text, err, want)
		}
	}
	for _, p := range []*RingHash{
		{Key: "none", VirtualNodes: 1},
		{Key: "{a", VirtualNodes: 1},
		{Key: "{a}", VirtualNodes: -1},
		{Key: "{a}", VirtualNodes: 10_001},
		{Key: "{a}", VirtualNodes: 1, LoadFactor: 0.5},
		{Key: "{a}", VirtualNodes: 1, LoadFactor: -1},
	} {
		if err := p.Validate(); err == nil {
			t.Errorf("%q, %d, %v: no error", p.Key, p.VirtualNodes, p.LoadFactor)
		}
	}
}
