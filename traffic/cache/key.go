package cache

import (
	"net/http"

	"github.com/rgate/rgate/internal/trust"
	"github.com/rgate/rgate/policy"
	"github.com/rgate/rgate/traffic/httpcache"
	"github.com/rgate/rgate/traffic/sharing"
)

// keyOf appends the key of a request's response. Besides the URL of the client's request, it
// has all that selects the target: the rewritten URL, the port, the policy's position, the
// route and the backend. Clients can send any Host, and must not be able to store a
// response for another site.
func (p *Cache) keyOf(key httpcache.Key, r *http.Request, site *cacheSite, q *httpcache.Request) httpcache.Key {
	asked := policy.TargetOf(r)
	key = httpcache.AppendKey(key, trust.SchemeOf(r), asked.Host, asked.Path, asked.Query)
	key = sharing.AppendRewritten(key, r, &asked)
	key = append(key, site.scope...)
	key = trust.AppendForwarded(key, r)
	key = sharing.AppendPort(key, r)
	return p.sharing.AppendTo(key, r, q)
}

// cacheURL returns the URL of the client's request, in the form of the store.
func cacheURL(r *http.Request) string {
	asked := policy.TargetOf(r)
	return string(httpcache.AppendURL(nil, trust.SchemeOf(r), asked.Host, asked.Path, asked.Query))
}
