package gateway

import (
	"cmp"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/rgate/rgate/gateway/operations"
	"github.com/rgate/rgate/policy"
	"github.com/rgate/rgate/stats"
)

// endpointPath is the path of an endpoint. It takes precedence over routes.
type endpointPath struct {
	name string // for errors
	path string
	at   string // JSON path; empty for a default
}

// endpointPaths returns the paths of all enabled endpoints.
func (g *Gateway) endpointPaths() (all []endpointPath) {
	add := func(name, path, byDefault, at string) {
		if path == "" {
			at = ""
		}
		if path = cmp.Or(path, byDefault); strings.HasPrefix(path, "/") {
			all = append(all, endpointPath{name, path, at})
		}
	}
	switch page := g.Stats; {
	case page == nil:
		add("the statistics page", "", stats.DefaultPath, "")
	case !page.Disabled:
		add("the statistics page", page.Path, stats.DefaultPath, "stats.path")
	}
	if g.Operations != nil {
		add("operations", g.Operations.Path, operations.DefaultPath, "operations.path")
	}
	for i, raw := range g.HandlersRaw {
		name := rawHandlerName(raw)
		if !policy.IsEndpoint(name) {
			continue
		}
		var handler struct {
			Path     string `json:"path"`
			Disabled bool   `json:"disabled"`
		}
		if json.Unmarshal(raw, &handler) != nil || handler.Disabled {
			continue // disabled, or provisioning reports the error
		}
		short := strings.TrimPrefix(name, policy.Prefix)
		byDefault := ""
		if module, ok := policy.Lookup(short); ok {
			if endpoint, ok := module.New().(interface{ DefaultPath() string }); ok {
				byDefault = endpoint.DefaultPath()
			}
		}
		add(short, handler.Path, byDefault, fmt.Sprintf("handle[%d].path", i))
	}
	return all
}

// checkEndpointPaths reports endpoints whose paths overlap.
func (g *Gateway) checkEndpointPaths() error {
	all := g.endpointPaths()
	for i, one := range all {
		for _, other := range all[:i] {
			if !within(one.path, other.path) && !within(other.path, one.path) {
				continue
			}
			problem := problemf(one.at, "%s of %s and %s of %s overlap: use another path for one of the two",
				one.path, one.name, other.path, other.name)
			if one.at == "" { // the error names the configured path, not the default
				problem.Path = other.at
			} else {
				problem.Other = other.at
			}
			return problem
		}
	}
	return nil
}

// within reports whether path is other or below it.
func within(path, other string) bool {
	rest, ok := strings.CutPrefix(path, other)
	return ok && (rest == "" || rest[0] == '/')
}
