package gateway

import (
	"cmp"
	"encoding/json"
	"slices"
	"strings"

	"github.com/rgate/rgate/policy"
	"github.com/rgate/rgate/stats"
)

// ownPath is a path that the gateway answers by itself.
type ownPath struct {
	name, at, path string
	under          bool // also what is under it
}

func (o ownPath) covers(path string) bool {
	rest, ok := strings.CutPrefix(path, o.path)
	return ok && (rest == "" || o.under && rest[0] == '/')
}

// ownPaths lists what the gateway answers by itself, in the order in which it looks.
func (g *Gateway) ownPaths() (all []ownPath) {
	if s := g.Stats; s == nil {
		all = append(all, ownPath{"stats", "stats", stats.DefaultPath, false})
	} else if !s.Disabled {
		all = append(all, ownPath{"stats", "stats.path", cmp.Or(s.Path, stats.DefaultPath), false})
	}
	if o := g.Operations; o != nil {
		all = append(all, ownPath{"operations", "operations.path", cmp.Or(o.Path, defaultOperationsPath), true})
	}
	g.eachHandler(func(at string, _ *Backend, raw json.RawMessage) {
		if name := nameOfRaw(raw); policy.IsEndpoint(name) && !isOffRaw(raw) {
			if path := endpointPath(name, raw); path != "" {
				all = append(all, ownPath{strings.TrimPrefix(name, policy.Prefix), at + ".path", path, true})
			}
		}
	})
	slices.SortStableFunc(all, func(a, b ownPath) int {
		return cmp.Compare(policy.Rank(policy.Prefix+a.name), policy.Rank(policy.Prefix+b.name))
	})
	return all
}

// endpointPath is the path of an endpoint in JSON, or empty if it has none.
func endpointPath(name string, raw json.RawMessage) string {
	var options struct {
		Path string `json:"path"`
	}
	_ = json.Unmarshal(raw, &options) // its own type has more to say about that
	if options.Path == "" && name == "rgate_dashboard" {
		return defaultDashboardPath
	}
	return options.Path
}

const defaultDashboardPath = "/dashboard"

// checkPaths makes sure that none of them is hidden by one that is looked for before.
func (g *Gateway) checkPaths() error {
	all := g.ownPaths()
	for i, one := range all {
		for _, other := range all[:i] {
			if other.covers(one.path) {
				problem := problemf(one.at, "%s would be at %s, where %s is, at %s: give one of the two another path", one.name, one.path, other.name, other.path)
				problem.Other = other.at
				return problem
			}
		}
	}
	return nil
}
