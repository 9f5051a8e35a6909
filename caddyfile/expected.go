package caddyfile

import (
	"net/http"
	"slices"
	"strings"

	"golang.org/x/net/http/httpguts"

	"github.com/rgate/rgate/policy"
)

// expectedFields are the fields of requests that a configuration reads although Caddy's
// server drops fields with such names, sorted.
type expectedFields struct{ underscores, dots []string }

// expected sorts names of fields by what is unusual in them. Names that backends confuse
// with those of fields about identity, proxies or framing are left out: they stay dropped,
// and the gateway refuses a configuration that reads them.
func expected(names []string) (fields expectedFields) {
	canonical := make([]string, 0, len(names))
	for _, name := range names {
		if httpguts.ValidHeaderFieldName(name) && policy.LooksLike(name) == "" {
			canonical = append(canonical, http.CanonicalHeaderKey(name))
		}
	}
	slices.Sort(canonical)
	for _, name := range slices.Compact(canonical) {
		if strings.Contains(name, "_") {
			fields.underscores = append(fields.underscores, name)
		} else {
			fields.dots = append(fields.dots, name)
		}
	}
	return fields
}

func (f expectedFields) none() bool { return f.underscores == nil && f.dots == nil }
