package cache

import (
	"net/http"

	"github.com/rgate/rgate/policy"
	"github.com/rgate/rgate/traffic/httpcache"
	"github.com/rgate/rgate/traffic/sharing"
)

// keyOf appends what a request's response is stored under. Besides the URL that the client asked
// for, it has all that decides where the request goes: what handlers have made of the URL,
// the port that it came to, the policy's position, the route, the backend. A client can
// say anything in Host, and must not be able to put the response of one site into the place
// of another's.
func (p *Cache) keyOf(key httpcache.Key, r *http.Request, site *cacheSite, q *httpcache.Request) httpcache.Key {
	asked := policy.TargetOf(r)
	key = httpcache.AppendKey(key, policy.SchemeOf(r), asked.Host, asked.Path, asked.Query)
	key = sharing.AppendRewritten(key, r, &asked)
	key = append(key, site.scope...)
	key = policy.AppendForwarded(key, r)
	key = sharing.AppendPort(key, r)
	return p.sharing.AppendTo(key, r, q)
}

// cacheURL is the URL that the client asked for, as the store knows it.
func cacheURL(r *http.Request) string {
	asked := policy.TargetOf(r)
	return string(httpcache.AppendURL(nil, policy.SchemeOf(r), asked.Host, asked.Path, asked.Query))
}
