package access

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"unicode"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/rgate/rgate/policy"
)

// identity is who sent a request, as the policies found out that have let it pass
// so far. Its claims belong to all requests with the same token: nobody changes
// them, and their numbers are of type json.Number. Placeholders read it:
//
//	{http.auth.user.id}             the user, else the consumer
//	{http.auth.user.consumer}       the consumer
//	{http.auth.user.scopes}         scopes, with spaces between them
//	{http.auth.user.roles}          roles, likewise, without those that have spaces in them
//	{http.auth.user.claims.NAME}    a claim of a token; dots lead into objects, and
//	                                objects and lists are written in JSON
type identity struct {
	user     string         // whom a token was issued to
	consumer string         // the name of an API key
	scopes   []string       // of both
	roles    []string       // of both
	claims   map[string]any // of a token
}

const identityVar = "rgate.identity"

// identityOf returns who sent a request; nil if no policy has found out. A user
// that was authenticated by another handler, such as Caddy's basic_auth, has a name
// and nothing else.
func identityOf(r *http.Request) *identity {
	if who, ok := caddyhttp.GetVar(r.Context(), identityVar).(*identity); ok {
		return who
	}
	if repl, ok := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer); ok {
		if user, ok := repl.GetString("http.auth.user.id"); ok && user != "" {
			return &identity{user: user}
		}
	}
	return nil
}

// identify adds what a policy has found out to the identity of a request: for the
// policies after it, for placeholders, and in the header that the backend gets.
func identify(r *http.Request, found identity) {
	policy.Authenticate(r)
	who, ok := caddyhttp.GetVar(r.Context(), identityVar).(*identity)
	if !ok {
		who = new(identity)
		caddyhttp.SetVar(r.Context(), identityVar, who)
		if repl, ok := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer); ok {
			repl.Map(who.placeholder)
		}
	}
	if found.user != "" {
		who.user = found.user
	}
	if found.consumer != "" {
		who.consumer = found.consumer
	}
	if found.claims != nil {
		who.claims = found.claims
	}
	who.scopes = union(who.scopes, found.scopes)
	who.roles = union(who.roles, found.roles)

	setHeader(r, policy.HeaderUserID, who.user)
	setHeader(r, policy.HeaderConsumerUsername, who.consumer)
	setHeader(r, policy.HeaderConsumerScopes, strings.Join(who.scopes, " "))
	if repl, ok := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer); ok {
		repl.Set("http.auth.user.id", who.name()) // also over another handler's
	}
}

// setHeader tells the backend something, unless it is empty or would be something
// else when it gets there.
func setHeader(r *http.Request, field, value string) {
	if value != "" && isHeaderText(value) {
		r.Header[field] = []string{value}
	}
}

// isHeaderText reports whether a text can be the value of a header field and is
// still the same when it is read: it has no control characters, and no spaces at
// its ends.
func isHeaderText(text string) bool {
	for i := range len(text) {
		if c := text[i]; c < ' ' || c == 0x7f {
			return false
		}
	}
	return text == strings.TrimSpace(text)
}

// name is what the request's sender is called.
func (who *identity) name() string {
	if who.user != "" {
		return who.user
	}
	return who.consumer
}

func (who *identity) placeholder(key string) (any, bool) {
	name, ok := strings.CutPrefix(key, "http.auth.user.")
	if !ok {
		return nil, false
	}
	switch name {
	case "consumer":
		return who.consumer, true
	case "scopes":
		return strings.Join(who.scopes, " "), true
	case "roles":
		return strings.Join(slices.DeleteFunc(slices.Clone(who.roles), hasSpace), " "), true
	}
	if claim, ok := strings.CutPrefix(name, "claims."); ok {
		value, _ := claimAt(who.claims, claim)
		return asText(value), true
	}
	return nil, false
}

// hasSpace reports whether a role would be several among others with spaces between them.
func hasSpace(role string) bool { return strings.ContainsFunc(role, unicode.IsSpace) }

// asText makes JSON of what has no text of its own.
func asText(claim any) any {
	switch claim.(type) {
	case map[string]any, []any:
		if text, err := json.Marshal(claim); err == nil {
			return string(text)
		}
	}
	return claim
}

// claimAt returns a claim by its name, or if there is none of that name, by a path
// whose dots lead into objects.
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

// union appends those of more that are not in all.
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
