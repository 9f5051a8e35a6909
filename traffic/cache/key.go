package cache

import (
	"net/http"

	"github.com/rgate/rgate/internal/trust"
	"github.com/rgate/rgate/policy"
	"github.com/rgate/rgate/traffic/httpcache"
	"github.com/rgate/rgate/traffic/sharing"
)

// keyOf appends the cache key of a request. The key contains the URL of the client's
// request, the rewritten URL, the port, the position of the policy, the route and the
// backend. Without these parts, a client could store a response for another site by
// sending its Host.
func (p *Cache) keyOf(key httpcache.Key, r *http.Request, site *cacheSite, q *httpcache.Request) httpcache.Key {
	asked := policy.TargetOf(r)
	key = httpcache.AppendKey(key, trust.SchemeOf(r), asked.Host, asked.Path, asked.Query)
	key = sharing.AppendRewritten(key, r, &asked)
	key = append(key, site.scope...)
	key = trust.AppendForwarded(key, r)
	key = sharing.AppendPort(key, r)
	return p.sharing.AppendTo(key, r, q)
}

// cacheURL returns the normalized URL of the client's request.
func cacheURL(r *http.Request) string {
	asked := policy.TargetOf(r)
	return string(httpcache.AppendURL(nil, trust.SchemeOf(r), asked.Host, asked.Path, asked.Query))
}
