package bandwidth

import (
	"cmp"
	"slices"

	"github.com/caddyserver/caddy/v2"

	"github.com/rgate/rgate/internal/options"
	"github.com/rgate/rgate/policy"
	"github.com/rgate/rgate/stats"
)

// Outside of a gateway, rgate_stats, rgate_bandwidth and rgate_quota are connected by
// name. These checks report a missing handler.

// checkCounted returns an error if no statistics with the name in gateway count bytes.
func (m *Meter) checkCounted(ctx caddy.Context) error {
	if m.Gateway == policy.ScopeOf(ctx).Gateway || len(m.Sources) > 0 || stats.Counts(ctx, m.Gateway) {
		return nil
	}
	found, known := policy.HasHandler(ctx, func(handler map[string]any) bool {
		switch handler["handler"] {
		case "rgate_stats":
			return textOr(handler["name"], stats.DefaultName) == m.Gateway
		case "rgate":
			return textOr(handler["name"], "rgate") == m.Gateway
		}
		return false
	})
	if found || !known {
		return nil
	}
	return options.Errorf("gateway", "unknown gateway %q: "+
		"add an rgate_stats with this name, or set gateway to the name of an existing rgate_stats", m.Gateway)
}

// checkKept returns an error if no meter records the quota's usage.
func (p *Quota) checkKept(ctx caddy.Context, gateway string) error {
	config := any(ctx.GetMetricsRegistry())
	if policy.ScopeOf(ctx).Gateway != "" || running.Newest(func(m *Meter) bool { return m.Gateway == gateway && m.config == config }) != nil {
		return nil
	}
	found, known := policy.HasHandler(ctx, func(handler map[string]any) bool {
		switch off, _ := handler["disabled"].(bool); handler["handler"] {
		case "rgate_bandwidth":
			return !off && textOr(handler["gateway"], stats.DefaultName) == gateway
		case "rgate":
			return textOr(handler["name"], "rgate") == gateway && keepsAccount(handler)
		}
		return false
	})
	if found || !known {
		return nil
	}
	return options.Errorf("gateway", "no rgate_bandwidth records gateway %q: "+
		"add rgate_bandwidth and an rgate_stats with this name, or set gateway to a name that rgate_bandwidth records", gateway)
}

// keepsAccount reports whether a gateway records bandwidth: it has rgate_bandwidth, or a
// handler that requires it.
func keepsAccount(gateway map[string]any) bool {
	var look func(value any) bool
	look = func(value any) bool {
		switch value := value.(type) {
		case []any:
			return slices.ContainsFunc(value, look)
		case map[string]any:
			switch value["handler"] {
			case "rgate_bandwidth", "rgate_quota", "rgate_notify", "rgate_dashboard":
				return true
			}
			for _, one := range value {
				if look(one) {
					return true
				}
			}
		}
		return false
	}
	return look(gateway)
}

func textOr(value any, usual string) string {
	text, _ := value.(string)
	return cmp.Or(text, usual)
}
