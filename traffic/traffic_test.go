package traffic

import (
	"encoding/json"
	"net/url"
)

func coalesceJSON(v any) []byte {
	encoded, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return encoded
}

func mustURL(path, query string) *url.URL { return &url.URL{Path: path, RawQuery: query} }
