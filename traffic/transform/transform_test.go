package transform

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// loadTransform provisions a transform from JSON.
func loadTransform(t testing.TB, config string) *Transform {
	t.Helper()
	ctx, cancel := caddy.NewContext(caddy.Context{Context: context.Background()})
	t.Cleanup(cancel)
	module, err := ctx.LoadModuleByID("http.handlers.rgate_transform", json.RawMessage(config))
	if err != nil {
		t.Fatalf("%s: %v", config, err)
	}
	return module.(*Transform)
}

// transformRequest returns a request like Caddy's server. fields alternates names and
// values.
func transformRequest(method, target, body string, fields ...string) *http.Request {
	var reader io.Reader
	if body != "" {
		reader = strings.NewReader(body)
	}
	r := httptest.NewRequest(method, target, reader)
	for i := 0; i+1 < len(fields); i += 2 {
		r.Header.Add(fields[i], fields[i+1])
	}
	return caddyhttp.PrepareRequest(r, transformReplacer(), httptest.NewRecorder(), new(caddyhttp.Server))
}

// transformReplacer returns a replacer with the placeholders of these tests.
func transformReplacer() *caddy.Replacer {
	repl := caddy.NewReplacer()
	repl.Map(func(key string) (any, bool) {
		value, ok := transformPlaceholders[key]
		return value, ok
	})
	return repl
}

var transformPlaceholders = map[string]any{
	"http.rgate.param.id": "a b/7", "http.rgate.param.action": "create", "http.rgate.param.*": "x y/%2e/z",
	"http.rgate.backend": "payment", "http.rgate.route": "/api", "test.crlf": "a\r\nX-Evil: 1", "test.quotes": `","admin":true,"x":"`,
	"test.list": []any{"a", 1}, "test.number": 7, "test.true": true, "test.dots": "..", "test.empty": "", "test.json": `{"a":[1, 2]}`,
	"test.text": "seven", "test.segment": "a;b=c d%",
}

// transformed holds the request received by the handler behind a transform, and the
// response.
type transformed struct {
	request  *http.Request
	body     string
	response *httptest.ResponseRecorder
	err      error
}

// serve sends a request through a transform to a handler. The handler responds with the
// status, body and header fields.
func (t *Transform) serve(r *http.Request, status int, body string, fields ...string) (got transformed) {
	got.response = httptest.NewRecorder()
	got.err = t.ServeHTTP(got.response, r, caddyhttp.HandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
		read, err := io.ReadAll(r.Body)
		if err != nil {
			return err
		}
		got.request, got.body = r, string(read)
		for i := 0; i+1 < len(fields); i += 2 {
			w.Header().Add(fields[i], fields[i+1])
		}
		w.WriteHeader(status)
		if body != "" {
			_, err = io.WriteString(w, body)
		}
		return err
	}))
	return got
}

func TestRequestBodies(t *testing.T) {
	const isJSON = "application/json; charset=utf-8"
	for name, tc := range map[string]struct{ options, method, contentType, body, want string }{
		"the documented case": {
			`{"rename": {"user_data": "user"}, "set": {"api_version": "v2", "action": "{http.rgate.param.action}"}}`, "POST", isJSON,
			`{"user_data": {"name": "Jo", "id": 12345678901234567890}}`,
			`{"user": {"name": "Jo", "id": 12345678901234567890},"action":"create","api_version":"v2"}`,
		},
		"the order of things": {
			`{"delete": ["a"], "rename": {"b": "a"}, "move": {"c": "d.e"}, "set": {"d.f": 1, "a": "new"}}`, "PUT", "application/problem+json",
			`{"a":1,"b":2,"c":3}`, `{"a":"new","d":{"e":3,"f":1}}`,
		},
		"values of all types": {
			`{"set": {"a": 1.50, "b": true, "c": null, "d": ["x",{"y":"{test.number}"}], "e": {"f":"{test.text}"}, "g": 12345678901234567890}}`, "POST", isJSON,
			`{}`, `{"a":1.50,"b":true,"c":null,"d":["x",{"y":"7"}],"e":{"f":"seven"},"g":12345678901234567890}`,
		},
		"values that are JSON": {
			`{"set": {"a": "json:{test.number}", "b": "json:{test.true}", "c": "json:{test.list}", "d": "json:{test.json}", "e": "json:{test.text}",
			"f": "json:{test.empty}", "g": "json:{test.unknown}", "h": "json:[1, \"{test.text}\", \"json:{test.number}\"]", "i": "json:{}"}}`, "POST", isJSON,
			`{}`, `{"a":7,"b":true,"c":["a",1],"d":{"a":[1, 2]},"e":"seven","f":null,"g":null,"h":[1, "seven", 7],"i":{}}`,
		},
		"nothing gets out of its text": {
			`{"set": {"a": "{test.quotes}", "b": "json:{test.quotes}", "c": "x{test.crlf}y"}}`, "POST", isJSON,
			`{}`, `{"a":"\",\"admin\":true,\"x\":\"","b":"\",\"admin\":true,\"x\":\"","c":"xa\r\nX-Evil: 1y"}`,
		},
		"parts of the body": {
			`{"set": {"n": "{http.rgate.body.u.name}!", "i": "json:{http.rgate.body.u.ids}", "t": "json:{http.rgate.body.u.name}", "m": "json:{http.rgate.body.none}", "x": "{http.rgate.body.u.ids.1}"}, "delete": ["u"]}`,
			"POST", isJSON, `{"u":{"name":"a\"b","ids":[1, 2.0]}}`, `{"i":[1, 2.0],"m":null,"n":"a\"b!","t":"a\"b","x":"2.0"}`,
		},
		"a template": {
			`{"template": {"user": "json:{http.rgate.body.user_data}", "version": 2, "by": "{http.rgate.body.who}", "all": "json:{http.rgate.body}"}}`, "POST", isJSON,
			`{"user_data":{"id":1},"who":"x"}`, `{"user": {"id":1}, "version": 2, "by": "x", "all": {"user_data":{"id":1},"who":"x"}}`,
		},
		"a template as text":           {`{"template": "{ \"a\": [\"{test.text}\"] }"}`, "POST", "", ``, `{ "a": ["seven"] }`},
		"a template over another type": {`{"template": {"a": "{http.rgate.body.x}"}}`, "POST", "text/plain", `hello`, `{"a": ""}`},
		"a template for GET":           {`{"template": {"a": 1}}`, "GET", "", ``, ``},
		"no JSON":                      {`{"set": {"a": 1}}`, "POST", "text/plain", `{"b":1}`, `{"b":1}`},
		"no type":                      {`{"set": {"a": 1}}`, "POST", "", `{"b":1}`, `{"b":1,"a":1}`},
		"no type and no JSON":          {`{"set": {"a": 1}}`, "POST", "", `<b>`, `<b>`},
		"no type and nothing":          {`{"set": {"a": 1}}`, "POST", "", " \n", " \n"},
		"a type without its slash":     {`{"set": {"a": 1}}`, "POST", "json", `{"b":1}`, `{"b":1,"a":1}`},
		"a type without a semicolon":   {`{"set": {"a": 1}}`, "POST", "text/json charset=utf-8", `{"b":1}`, `{"b":1,"a":1}`},
		"events":                       {`{"set": {"a": 1}}`, "POST", "application/stream+json", `{"b":1}`, `{"b":1}`},
		"no body":                      {`{"set": {"a": 1}}`, "POST", isJSON, ``, ``},
		"nothing to do":                {`{"delete": ["a"]}`, "POST", "TEXT/JSON", ` {"b" : 1.0e5 } `, ` {"b" : 1.0e5 } `},
	} {
		handler := loadTransform(t, `{"request": {"body": `+tc.options+`}}`)
		var fields []string
		if tc.contentType != "" {
			fields = []string{"Content-Type", tc.contentType, "Content-Md5", "x", "Content-Digest", "x"}
		}
		got := handler.serve(transformRequest(tc.method, "/", tc.body, fields...), 200, "")
		if got.err != nil || got.response.Code != 200 {
			t.Errorf("%s: got %d and %v", name, got.response.Code, got.err)
			continue
		}
		if got.body != tc.want {
			t.Errorf("%s: got %s, want %s", name, got.body, tc.want)
		}
		if got.request.ContentLength != int64(len(tc.want)) {
			t.Errorf("%s: the length is %d, want %d", name, got.request.ContentLength, len(tc.want))
		}
		if changed := tc.body != tc.want; changed && got.request.Header.Get("Content-Digest")+got.request.Header.Get("Content-Md5") != "" {
			t.Errorf("%s: digests of another body are left: %v", name, got.request.Header)
		}
	}
}

func TestRequestBodiesThatAreRefused(t *testing.T) {
	const isJSON = "application/json"
	for name, tc := range map[string]struct {
		options, body string
		fields        []string
		status        int
	}{
		"no JSON":             {`"body": {"set": {"a": 1}}`, `{"a":`, nil, 400},
		"two values":          {`"body": {"set": {"a": 1}}`, `{} {}`, nil, 400},
		"no place":            {`"body": {"set": {"a": 1}}`, `[1]`, nil, 400},
		"nested too deep":     {`"body": {"set": {"a": 1}}`, strings.Repeat("[", 20000) + strings.Repeat("]", 20000), nil, 400},
		"too large":           {`"body": {"set": {"a": 1}}`, `{"a":"` + strings.Repeat("x", 1<<20) + `"}`, nil, 413},
		"compressed":          {`"body": {"set": {"a": 1}}`, `{}`, []string{"Content-Encoding", "gzip"}, 415},
		"plain and said so":   {`"body": {"set": {"a": 1}}`, `{}`, []string{"Content-Encoding", "identity"}, 200},
		"not to be held":      {`"body": {"set": {"a": 1}}`, `{}`, []string{"Incremental", "?1"}, 501},
		"large but no edits":  {`"headers": {"set": {"A": "1"}}`, `{"a":"` + strings.Repeat("x", 1<<20) + `"}`, nil, 200},
		"dots in the path":    {`"path": "/v2/{test.dots}"`, ``, nil, 400},
		"dots behind a slash": {`"path": "/v2/{http.rgate.param.*}"`, ``, nil, 400},
		"a slash in a path":   {`"path": "/v2/{http.rgate.param.id}"`, ``, nil, 400},
		"an empty segment":    {`"path": "/v2/{test.empty}/x"`, ``, nil, 400},
		"an unknown segment":  {`"path": "/v2/{test.unknown}/x"`, ``, nil, 400},
	} {
		handler := loadTransform(t, `{"request": {`+tc.options+`}}`)
		method := "POST"
		got := handler.serve(transformRequest(method, "/", tc.body, append(tc.fields, "Content-Type", isJSON)...), 200, "")
		if got.err != nil || got.response.Code != tc.status {
			t.Errorf("%s: got %d and %v, want %d", name, got.response.Code, got.err, tc.status)
		}
		if refused := tc.status != 200; refused != (got.request == nil) {
			t.Errorf("%s: the backend got a request: %v", name, got.request != nil)
		}
		if text := got.response.Body.String(); tc.status != 200 && text != http.StatusText(tc.status)+"\n" {
			t.Errorf("%s: the client receives %q", name, text)
		}
		if tc.status == 415 && got.response.Header().Get("Accept-Encoding") != "identity" {
			t.Errorf("%s: Accept-Encoding is missing", name)
		}
	}
	handler := loadTransform(t, `{"request": {"path": "{http.request.uri.path}"}}`)
	for path, status := range map[string]int{"//host/a": 400, `/\host`: 400, "/a//b": 200, "/a/..;x/b": 400, "/a/.%2e/b": 400, "/a/%252e%252e": 400, "/a/..b": 200} {
		r := transformRequest("GET", "/", "")
		r.URL.Path = path
		if got := handler.serve(r, 200, ""); got.response.Code != status {
			t.Errorf("%s: got %d, want %d", path, got.response.Code, status)
		}
	}
	// A body of unknown length.
	handler = loadTransform(t, `{"max_body": "8B", "request": {"body": {"set": {"a": 1}}}}`)
	for body, status := range map[string]int{`{"a": 0}`: 200, `{"a": 10}`: 413} {
		r := transformRequest("POST", "/", body, "Content-Type", isJSON)
		r.ContentLength = -1
		if got := handler.serve(r, 200, ""); got.response.Code != status {
			t.Errorf("%s: got %d, want %d", body, got.response.Code, status)
		}
	}
	for cause, status := range map[error]int{&http.MaxBytesError{Limit: 1}: 413, io.ErrUnexpectedEOF: 400} {
		r := transformRequest("POST", "/", "{}", "Content-Type", isJSON)
		r.Body = io.NopCloser(brokenReader{cause})
		if got := handler.serve(r, 200, ""); got.response.Code != status {
			t.Errorf("%v: got %d, want %d", cause, got.response.Code, status)
		}
	}
}

type brokenReader struct{ err error }

func (b brokenReader) Read([]byte) (int, error) { return 0, b.err }

func TestRequestHeaders(t *testing.T) {
	handler := loadTransform(t, `{"request": {"headers": {
		"set": {"x-a": "b", "X-Id": "id {http.request.header.X-Gone}", "X-Crlf": "{test.crlf}", "Host": "inner.example"},
		"add": {"X-Many": "3"}, "delete": ["X-C", "x-gone"], "rename": {"X-Old": "X-New", "X-None": "X-Kept"}}}}`)
	got := handler.serve(transformRequest("GET", "/", "", "X-C", "1", "X-Gone", "7", "X-Many", "1", "X-Many", "2",
		"X-Old", "o", "X-Old", "p", "X-New", "n", "X-A", "a", "X-Kept", "k"), 200, "")
	want := http.Header{
		"X-A": {"b"}, "X-Id": {"id 7"}, "X-Crlf": {"a  X-Evil: 1"}, "X-Many": {"1", "2", "3"}, "X-New": {"o", "p"}, "X-Kept": {"k"},
	}
	for name, values := range want {
		if strings.Join(got.request.Header[name], "|") != strings.Join(values, "|") {
			t.Errorf("%s is %q, want %q", name, got.request.Header[name], values)
		}
	}
	if len(got.request.Header) != len(want) || got.request.Host != "inner.example" {
		t.Errorf("got the host %q and %v, want %v", got.request.Host, got.request.Header, want)
	}
}

func TestRequestTargets(t *testing.T) {
	for name, tc := range map[string]struct{ options, target, want string }{
		"set":                 {`"query": {"set": {"v": "2", "q": "{http.request.method} &="}}`, "/p?a=%20+b&v=1&v=3&c", "/p?a=%20+b&c&q=POST+%26%3D&v=2"},
		"add":                 {`"query": {"add": {"a": "2"}}`, "/p?a=1", "/p?a=1&a=2"},
		"the first one":       {`"query": {"add": {"a": "2"}}`, "/p", "/p?a=2"},
		"delete":              {`"query": {"delete": ["a"]}`, "/p?%61=1&b=%zz&a=2&&a", "/p?b=%zz&"},
		"delete the last":     {`"query": {"delete": ["a"]}`, "/p?a=1", "/p"},
		"rename":              {`"query": {"rename": {"a": "b c"}}`, "/p?x=1&a=%20&b+c=3&a", "/p?x=1&b+c=%20&b+c"},
		"rename of none":      {`"query": {"rename": {"a": "b"}}`, "/p?b=1", "/p?b=1"},
		"odd bytes":           {`"query": {"set": {"a": "1"}}`, "/%7Ep/{x}", "/%7Ep/{x}?a=1"},
		"path":                {`"path": "/v2/things/{http.rgate.param.action}"`, "/p?a=1", "/v2/things/create?a=1"},
		"encoded path":        {`"path": "/a%2Fb%20c/{test.segment}"`, "/p", "/a%2Fb%20c/a%3Bb=c%20d%25"},
		"the path itself":     {`"path": "/x{http.request.uri.path}"`, "/a%20b/c", "/x/a%20b/c"},
		"path from the query": {`"path": "/x/{http.request.uri.query.id}", "query": {"delete": ["id"]}`, "/p?id=7&b=1", "/x/7?b=1"},
		"no slash":            {`"path": "{test.text}"`, "/p", "/seven"},
	} {
		handler := loadTransform(t, `{"request": {`+tc.options+`}}`)
		got := handler.serve(transformRequest("POST", tc.target, ""), 200, "")
		if got.request == nil {
			t.Errorf("%s: got %d", name, got.response.Code)
			continue
		}
		if got.request.RequestURI != tc.want || name != "odd bytes" && got.request.URL.RequestURI() != tc.want {
			t.Errorf("%s: got %s and %s, want %s", name, got.request.RequestURI, got.request.URL.RequestURI(), tc.want)
		}
	}
}

func TestMethod(t *testing.T) {
	handler := loadTransform(t, `{"request": {"method": "PUT", "body": {"template": {"a": "{http.request.method}"}}}}`)
	got := handler.serve(transformRequest("GET", "/", ""), 200, "")
	if got.request.Method != "PUT" || got.body != `{"a": "GET"}` || got.request.Header.Get("Content-Type") != "application/json" {
		t.Errorf("got %s with %q as %v", got.request.Method, got.body, got.request.Header)
	}
}

func TestPartsOfTheBodyElsewhere(t *testing.T) {
	handler := loadTransform(t, `{"request": {"path": "/u/{http.rgate.body.id}", "query": {"set": {"n": "{http.rgate.body.u.n}"}}, "headers": {"set": {"X-All": "{http.rgate.body}"}}}}`)
	got := handler.serve(transformRequest("POST", "/", ` {"id":7,"u":{"n":"x&"}}`, "Content-Type", "application/json"), 200, "")
	if got.request == nil || got.request.RequestURI != "/u/7?n=x%26" || got.request.Header.Get("X-All") != ` {"id":7,"u":{"n":"x&"}}` || got.body != ` {"id":7,"u":{"n":"x&"}}` {
		t.Errorf("got %d and %+v", got.response.Code, got)
	}
	if got := handler.serve(transformRequest("POST", "/", `{}`, "Content-Type", "application/json"), 200, ""); got.response.Code != 400 {
		t.Errorf("without what the path needs: got %d", got.response.Code)
	}
}

func TestTransformOff(t *testing.T) {
	for _, config := range []string{`{"disabled": true, "response": {"status": {"200": 500}}}`, `{}`} {
		handler := loadTransform(t, config)
		r := transformRequest("GET", "/", "")
		w := httptest.NewRecorder()
		err := handler.ServeHTTP(w, r, caddyhttp.HandlerFunc(func(inner http.ResponseWriter, _ *http.Request) error {
			if inner != http.ResponseWriter(w) {
				t.Error("the writer is wrapped for nothing")
			}
			return errors.New("passed")
		}))
		if err == nil || err.Error() != "passed" {
			t.Errorf("got %v", err)
		}
	}
}
