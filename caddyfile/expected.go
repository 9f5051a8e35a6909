package caddyfile

import (
	"net/http"
	"slices"
	"strings"

	"golang.org/x/net/http/httpguts"

	"github.com/rgate/rgate/internal/trust"
)

// expectedFields holds the names of request header fields that a configuration reads
// but that Caddy's server drops by default. The names are sorted.
type expectedFields struct{ underscores, dots []string }

// expected groups field names by whether they contain underscores or dots. It excludes
// names that backends confuse with identity, proxy or framing fields. The
// server drops these fields, and the gateway rejects a configuration that reads them.
func expected(names []string) (fields expectedFields) {
	canonical := make([]string, 0, len(names))
	for _, name := range names {
		if httpguts.ValidHeaderFieldName(name) && trust.CGIAlias(name) == "" {
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
