package transform

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/rgate/rgate/internal/testkit"
)

// kilobyte is a JSON object of about 1 KB.
var kilobyte = `{"user_data":{"name":"Jo","id":1},"items":[` + strings.Repeat(`{"sku":"4711-0815","n":2,"price":12.50},`, 24) + `{}]}`

func BenchmarkTransform(b *testing.B) {
	for name, config := range map[string]string{
		"none":             `{}`,
		"request headers":  `{"request": {"headers": {"set": {"X-A": "b", "X-Route": "{http.rgate.route}"}, "delete": ["X-C"]}}}`,
		"response headers": `{"response": {"headers": {"set": {"X-A": "b"}, "delete": ["Server"]}}}`,
		"request body":     `{"request": {"body": {"set": {"api_version": "v2", "action": "{http.rgate.param.action}"}, "rename": {"user_data": "user"}}}}`,
		"response body":    `{"response": {"body": {"delete": ["user_data.id"], "set": {"v": 2}}}}`,
		"envelope":         `{"response": {"envelope": true}}`,
		"path and query":   `{"request": {"path": "/v2/{http.rgate.param.action}", "query": {"set": {"v": "2"}}}}`,
	} {
		b.Run(name, func(b *testing.B) {
			handler := loadTransform(b, config)
			body := []byte(kilobyte)
			next := caddyhttp.HandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
				w.Header()["Content-Type"] = []string{"application/json"}
				_, err := w.Write(body)
				return err
			})
			r := transformRequest("POST", "/p?a=1", "", "Content-Type", "application/json", "X-C", "1", "X-Request-Id", "r1")
			r.ContentLength = int64(len(kilobyte))
			original, ctx := *r, r.Context()
			b.ReportAllocs()
			for b.Loop() {
				*r = *original.WithContext(context.WithValue(ctx, caddy.ReplacerCtxKey, transformReplacer()))
				r.Body = io.NopCloser(strings.NewReader(kilobyte))
				if err := handler.ServeHTTP(testkit.DiscardWriter(make(http.Header, 4)), r, next); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkJSONEdit(b *testing.B) {
	path := jsonPath{{name: "api_version", index: -1}}
	for _, size := range []int{1, 64, 1024} {
		text := `{"all":[` + strings.TrimSuffix(strings.Repeat(kilobyte+",", size), ",") + `]}`
		b.Run(fmt.Sprintf("set %d KB", size), func(b *testing.B) {
			b.SetBytes(int64(len(text)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := setJSON(text, path, `"v2"`); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
