package gateway

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
)

// fallbackSuffix is the suffix that marks the default fallback of a backend.
const fallbackSuffix = "-fallback"

// fallback is a `fallback` policy in the configuration.
type fallback struct {
	at      string   // JSON path
	owner   *Backend // nil if the policy is not around a backend
	backend string   // empty: the backends with the suffix
	alone   bool     // neither cached nor response is set
}

// fallbacks returns the `fallback` policies of all levels.
func (g *Gateway) fallbacks() (found []fallback) {
	g.eachHandler(func(at string, owner *Backend, raw json.RawMessage) {
		found = appendFallbacks(found, at, owner, raw)
	})
	return found
}

// eachHandler calls f for each handler of all levels, with its JSON path and, if it is
// around a backend, that backend.
func (g *Gateway) eachHandler(f func(at string, owner *Backend, raw json.RawMessage)) {
	look := func(at string, owner *Backend, handlers []json.RawMessage) {
		for i, raw := range handlers {
			f(fmt.Sprintf("%s[%d]", at, i), owner, raw)
		}
	}
	look("handle", nil, g.HandlersRaw)
	var inGroups func(at string, groups []*Group)
	inGroups = func(at string, groups []*Group) {
		for i, group := range groups {
			path := fmt.Sprintf("%sgroups[%d].", at, i)
			if group == nil {
				continue // checkRoutes reports the error
			}
			look(path+"handle", nil, group.HandlersRaw)
			inGroups(path, group.Groups)
		}
	}
	inGroups("", g.Groups)
	for _, rt := range g.resolvedRoutes() {
		if rt.Route == nil {
			continue // checkRoutes reports the error
		}
		look(rt.at+".handle", nil, rt.HandlersRaw)
	}
	for i, b := range g.Backends {
		if b == nil {
			continue // Check reports the error
		}
		look(fmt.Sprintf("backends[%d].around", i), b, b.AroundRaw)
	}
}

// appendFallbacks appends the fallbacks in a handler, including those in subroutes.
func appendFallbacks(found []fallback, at string, owner *Backend, raw json.RawMessage) []fallback {
	if !bytes.Contains(raw, []byte("rgate_fallback")) {
		return found
	}
	var handler struct {
		Handler  string `json:"handler"`
		Disabled bool   `json:"disabled"`
		Backend  string `json:"backend"`
		Cached   any    `json:"cached"`
		Response any    `json:"response"`
		Routes   []struct {
			Handle []json.RawMessage `json:"handle"`
		} `json:"routes"`
	}
	if json.Unmarshal(raw, &handler) != nil {
		return found // provisioning reports the error
	}
	if handler.Handler == "rgate_fallback" && !handler.Disabled {
		alone := handler.Response == nil && (handler.Cached == nil || handler.Cached == 0.0)
		return append(found, fallback{at, owner, handler.Backend, alone})
	}
	if handler.Handler == "subroute" {
		for i, route := range handler.Routes {
			for j, inner := range route.Handle {
				found = appendFallbacks(found, fmt.Sprintf("%s.routes[%d].handle[%d]", at, i, j), owner, inner)
			}
		}
	}
	return found
}

// checkFallbacks reports the first fallback whose backend does not exist.
func (g *Gateway) checkFallbacks(backends []string) error {
	for _, f := range g.fallbacks() {
		switch {
		case f.backend == "" && f.alone && !f.hasBackend(backends):
			like := "a backend whose name is the name of another backend followed by " + fallbackSuffix
			if f.owner != nil {
				like = fmt.Sprintf("a backend %q", f.owner.Name+fallbackSuffix)
			}
			return problemf(f.at, "fallback has no effect: define %s, or set backend, cached or response", like)
		case f.backend == "":
		case !slices.Contains(backends, f.backend):
			return problemf(f.at+".backend", "unknown fallback backend %q%s", f.backend, suggestOrList(f.backend, backends))
		case f.owner != nil && f.owner.Name == f.backend:
			return problemf(f.at+".backend", "backend %q cannot be its own fallback: use another backend", f.backend)
		}
	}
	return nil
}

// hasBackend reports whether the default fallback of the owner exists. Without an owner, it
// reports whether any default fallback exists.
func (f *fallback) hasBackend(backends []string) bool {
	if f.owner != nil {
		return slices.Contains(backends, f.owner.Name+fallbackSuffix)
	}
	return slices.ContainsFunc(backends, func(name string) bool { return slices.Contains(backends, name+fallbackSuffix) })
}

// markFallbacks marks the backends that fallbacks use.
func (g *Gateway) markFallbacks(used map[string]bool) {
	for _, f := range g.fallbacks() {
		switch {
		case f.backend != "":
			used[f.backend] = true
		case f.owner != nil:
			used[f.owner.Name+fallbackSuffix] = true
		default:
			for _, b := range g.Backends {
				used[b.Name+fallbackSuffix] = true
			}
		}
	}
}
