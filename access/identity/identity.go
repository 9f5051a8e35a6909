// Package identity stores the authenticated client of a request for policies,
// placeholders and the backend.
package identity

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"unicode"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/rgate/rgate/internal/trust"
	"github.com/rgate/rgate/policy"
)

// Identity is the authenticated client of a request. Requests with the same token share
// Claims, which must not be modified. Numbers in Claims are of type json.Number.
// Placeholders:
//
//	{http.auth.user.id}             the user, or the consumer if there is no user
//	{http.auth.user.consumer}       the consumer
//	{http.auth.user.scopes}         the scopes, separated by spaces
//	{http.auth.user.roles}          the roles that contain no spaces, separated by spaces
//	{http.auth.user.claims.NAME}    a claim of the token; dots select members of objects;
//	                                objects and lists are encoded as JSON
type Identity struct {
	User     string         // from a token
	Consumer string         // from an API key
	Scopes   []string       // from tokens and API keys
	Roles    []string       // from tokens and API keys
	Claims   map[string]any // from a token
}

const identityVar = "rgate.identity"

// Of returns the identity of a request, or nil if it is not authenticated. If another
// handler such as Caddy's basic_auth authenticated the user, only User is set.
func Of(r *http.Request) *Identity {
	if id, ok := caddyhttp.GetVar(r.Context(), identityVar).(*Identity); ok {
		return id
	}
	if repl, ok := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer); ok {
		if user, ok := repl.GetString("http.auth.user.id"); ok && user != "" {
			return &Identity{User: user}
		}
	}
	return nil
}

// Add merges an identity into the identity of the request, for later policies and
// placeholders. It also sets the identity fields for the backend.
func Add(r *http.Request, found Identity) {
	policy.MarkAuthenticated(r)
	id, ok := caddyhttp.GetVar(r.Context(), identityVar).(*Identity)
	if !ok {
		id = new(Identity)
		caddyhttp.SetVar(r.Context(), identityVar, id)
		if repl, ok := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer); ok {
			repl.Map(id.placeholder)
		}
	}
	if found.User != "" {
		id.User = found.User
	}
	if found.Consumer != "" {
		id.Consumer = found.Consumer
	}
	if found.Claims != nil {
		id.Claims = found.Claims
	}
	id.Scopes = union(id.Scopes, found.Scopes)
	id.Roles = union(id.Roles, found.Roles)

	setHeader(r, trust.HeaderUserID, id.User)
	setHeader(r, trust.HeaderConsumerUsername, id.Consumer)
	setHeader(r, trust.HeaderConsumerScopes, strings.Join(id.Scopes, " "))
	if repl, ok := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer); ok {
		repl.Set("http.auth.user.id", id.Name()) // overrides the value of other handlers
	}
}

// setHeader sets a request header field for the backend. It skips values that are empty
// or would be altered in transit.
func setHeader(r *http.Request, field, value string) {
	if value != "" && IsHeaderText(value) {
		r.Header[field] = []string{value}
	}
}

// Name returns the user, or the consumer if there is no user.
func (id *Identity) Name() string {
	if id.User != "" {
		return id.User
	}
	return id.Consumer
}

// Claim returns a claim of the token by name, or by a path in which dots select members
// of objects.
func (id *Identity) Claim(path string) (any, bool) { return claimAt(id.Claims, path) }

func claimAt(claims map[string]any, path string) (any, bool) {
	if value, ok := claims[path]; ok {
		return value, true
	}
	for i := range path {
		if path[i] != '.' {
			continue
		}
		if inner, ok := claims[path[:i]].(map[string]any); ok {
			if value, ok := claimAt(inner, path[i+1:]); ok {
				return value, true
			}
		}
	}
	return nil, false
}

func (id *Identity) placeholder(key string) (any, bool) {
	name, ok := strings.CutPrefix(key, "http.auth.user.")
	if !ok {
		return nil, false
	}
	switch name {
	case "consumer":
		return id.Consumer, true
	case "scopes":
		return strings.Join(id.Scopes, " "), true
	case "roles":
		return strings.Join(slices.DeleteFunc(slices.Clone(id.Roles), hasSpace), " "), true
	}
	if claim, ok := strings.CutPrefix(name, "claims."); ok {
		value, _ := id.Claim(claim)
		return placeholderValue(value), true
	}
	return nil, false
}

func hasSpace(text string) bool { return strings.ContainsFunc(text, unicode.IsSpace) }

// placeholderValue encodes objects and lists as JSON and returns other claims unchanged.
func placeholderValue(claim any) any {
	switch claim.(type) {
	case map[string]any, []any:
		if text, err := json.Marshal(claim); err == nil {
			return string(text)
		}
	}
	return claim
}

// union appends the elements of more that all does not contain.
func union(all, more []string) []string {
	if len(all) == 0 {
		return more[:len(more):len(more)]
	}
	for _, one := range more {
		if !slices.Contains(all, one) {
			all = append(all[:len(all):len(all)], one)
		}
	}
	return all
}
