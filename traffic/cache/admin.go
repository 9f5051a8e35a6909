package cache

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"

	"github.com/rgate/rgate/internal/options"
	"github.com/rgate/rgate/internal/status"
	"github.com/rgate/rgate/traffic/httpcache"
)

func init() {
	caddy.RegisterModule(adminCache{})
}

// adminCache provides endpoints of the admin API: /rgate/cache returns statistics of the
// stores, and /rgate/cache/purge removes stored responses.
type adminCache struct{}

// CaddyModule returns the Caddy module information.
func (adminCache) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "admin.api.rgate_cache",
		New: func() caddy.Module { return new(adminCache) },
	}
}

// Routes returns the routes of the endpoints.
func (a adminCache) Routes() []caddy.AdminRoute {
	return []caddy.AdminRoute{
		{Pattern: "/rgate/cache", Handler: caddy.AdminHandlerFunc(a.stats)},
		{Pattern: "/rgate/cache/purge", Handler: caddy.AdminHandlerFunc(a.purge)},
	}
}

// stats returns the statistics of all stores. It looks them up for each request because
// the module is loaded before the stores exist.
func (adminCache) stats(w http.ResponseWriter, r *http.Request) error {
	if r.Method != http.MethodGet {
		return adminError(http.StatusMethodNotAllowed, errors.New("method not allowed: use GET"))
	}
	type storeStats struct {
		Gateway string `json:"gateway"`
		httpcache.Stats
		Hits uint64 `json:"hits"`
	}
	stores := []storeStats{}
	for _, store := range allCacheStores() {
		stores = append(stores, storeStats{store.gateway, store.Stats(), store.hits()})
	}
	return writeJSON(w, map[string]any{"stores": stores})
}

// purgeRequest selects stored responses to remove. Exactly one of URL, Prefix, Tag and
// All is required.
type purgeRequest struct {
	URL    string `json:"url"`
	Prefix string `json:"prefix"`
	Tag    string `json:"tag"`
	All    bool   `json:"all"`

	Gateway *string `json:"gateway"` // nil selects all gateways
}

// selection validates the request and returns the responses to remove.
func (p *purgeRequest) selection() (httpcache.Purge, error) {
	given := 0
	for _, one := range []bool{p.URL != "", p.Prefix != "", p.Tag != "", p.All} {
		if one {
			given++
		}
	}
	purge := httpcache.Purge{URL: p.URL, Prefix: p.Prefix, Tag: p.Tag}
	if given != 1 {
		return purge, errors.New(`exactly one of url, prefix, tag and all is required, such as {"prefix": "/api/"}`)
	}
	for _, key := range []struct {
		name string
		text *string
	}{{"url", &purge.URL}, {"prefix", &purge.Prefix}} {
		if *key.text == "" || (*key.text)[0] == '/' {
			continue
		}
		url, ok := httpcache.NormalizeURL(*key.text)
		if !ok {
			return purge, fmt.Errorf("invalid %s %q: must be a URL such as https://example.com/a or a path such as /a", key.name, *key.text)
		}
		*key.text = url
	}
	return purge, nil
}

func (adminCache) purge(w http.ResponseWriter, r *http.Request) error {
	if r.Method != http.MethodPost {
		return adminError(http.StatusMethodNotAllowed, errors.New("method not allowed: use POST"))
	}
	var request purgeRequest
	decoder := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<20))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&request); err != nil {
		return adminError(http.StatusBadRequest, fmt.Errorf(`reading the request: %w: use JSON such as {"url": "https://example.com/a"}`, err))
	}
	purge, err := request.selection()
	if err != nil {
		return adminError(http.StatusBadRequest, err)
	}
	stores := allCacheStores()
	if request.Gateway != nil {
		if err := checkGateway(*request.Gateway, stores); err != nil {
			return adminError(http.StatusNotFound, err)
		}
	}
	purged := 0
	for _, store := range stores {
		if request.Gateway == nil || *request.Gateway == store.gateway {
			purged += store.Purge(purge)
		}
	}
	return writeJSON(w, map[string]int{"purged": purged})
}

// checkGateway returns an error if no gateway or store has the name. The empty name
// denotes the caches outside of gateways.
func checkGateway(name string, stores []*cacheStore) error {
	known := status.Services.Keys()
	for _, store := range stores {
		if store.gateway != "" {
			known = append(known, store.gateway)
		}
	}
	slices.Sort(known)
	known = slices.Compact(known)
	switch {
	case name == "" || slices.Contains(known, name):
		return nil
	case len(known) == 0:
		return fmt.Errorf("unknown gateway %q: no named gateway has a cache: remove gateway", name)
	}
	return fmt.Errorf("unknown gateway %q%s: use one of %s", name, options.Suggest(name, known), strings.Join(known, ", "))
}

func adminError(status int, err error) error { return caddy.APIError{HTTPStatus: status, Err: err} }

func writeJSON(w http.ResponseWriter, v any) error {
	w.Header().Set("Content-Type", "application/json")
	return json.NewEncoder(w).Encode(v)
}

// Interface guard
var _ caddy.AdminRouter = (*adminCache)(nil)
