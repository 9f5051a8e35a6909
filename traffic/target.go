package traffic

import (
	"net/http"

	"github.com/rgate/rgate/policy"
)

// appendRewritten appends what handlers have made of what a client asked for, if that is
// something else.
func appendRewritten(key []byte, r *http.Request, asked *policy.Target) []byte {
	path := cachePath(r)
	if path == asked.Path && r.URL.RawQuery == asked.Query && r.Host == asked.Host {
		return append(key, 0)
	}
	key = append(key, 1)
	for _, part := range [...]string{r.Host, path, r.URL.RawQuery} {
		key = appendText(key, part)
	}
	return key
}

// isForReading reports whether a client's own request, whatever handlers have made of it,
// is one whose response may be stored.
func isForReading(asked *policy.Target) bool {
	return asked.Method == http.MethodGet || asked.Method == http.MethodHead
}
