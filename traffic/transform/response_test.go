package transform

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

func TestResponseHeadersAndStatus(t *testing.T) {
	handler := loadTransform(t, `{"response": {
		"headers": {"set": {"X-Route": "{http.rgate.route}", "X-Crlf": "{test.crlf}"}, "add": {"Vary": "X-A"}, "delete": ["server"], "rename": {"X-Old": "X-New"}},
		"status": {"404": 204, "5xx": 503, "502": 500, "201": 200}}}`)
	for status, want := range map[int]int{200: 200, 201: 200, 404: 204, 403: 403, 500: 503, 502: 500, 503: 503, 304: 304} {
		got := handler.serve(transformRequest("GET", "/", ""), status, "body", "Vary", "Origin", "Server", "x", "X-Old", "o", "Content-Type", "text/plain", "Content-Length", "4", "Etag", `"a"`)
		header := got.response.Header()
		if got.response.Code != want {
			t.Errorf("%d became %d, want %d", status, got.response.Code, want)
		}
		if header.Get("X-Route") != "/api" || header.Get("X-Crlf") != "a  X-Evil: 1" || strings.Join(header["Vary"], "|") != "Origin|X-A" ||
			header["Server"] != nil || header.Get("X-New") != "o" || header["X-Old"] != nil {
			t.Errorf("%d came with %v", status, header)
		}
		body, length := "body", "4"
		if want == 204 {
			body, length = "", ""
		}
		if got.response.Body.String() != body || header.Get("Content-Length") != length || (header.Get("Etag") == `"a"`) == (want == 204) {
			t.Errorf("%d came as %q with %v", status, got.response.Body, header)
		}
	}
}

func TestResponseBodies(t *testing.T) {
	const edits = `"body": {"delete": ["password", "*.password"], "rename": {"user": "user_data"}, "move": {"a": "b.c"}, "set": {"by": "{http.rgate.backend}"}}`
	large := `{"a":"` + strings.Repeat("x", 1<<20) + `"}`
	for name, tc := range map[string]struct {
		method string
		status int
		body   string
		fields []string
		want   string
		code   int
		header http.Header // a nil value: the field is missing
	}{
		"changed": {"GET", 200, `{"user":1.0,"password":"x","a":[ ]}`, []string{"Content-Type", "application/json", "Etag", `"v1"`, "Accept-Ranges", "bytes", "Digest", "x", "Content-Encoding", "identity"},
			`{"user_data":1.0,"b":{"c":[ ]},"by":"payment"}`, 200,
			http.Header{"Content-Length": {"46"}, "Etag": {`W/"v1"`}, "Accept-Ranges": nil, "Digest": nil, "Content-Encoding": nil}},
		"an error":          {"GET", 422, `{}`, []string{"Content-Type", "application/problem+json"}, `{"by":"payment"}`, 422, nil},
		"weak already":      {"GET", 200, `{}`, []string{"Content-Type", "application/json", "Etag", `W/"v1"`}, `{"by":"payment"}`, 200, http.Header{"Etag": {`W/"v1"`}}},
		"what fits":         {"GET", 200, `[{"password":1},{"b":2}]`, []string{"Content-Type", "application/json"}, `[{},{"b":2}]`, 200, http.Header{"Content-Length": {"12"}}},
		"invalid":           {"GET", 200, `{"a":`, []string{"Content-Type", "application/json", "Etag", `"v1"`, "Content-Length", "5"}, "Bad Gateway\n", 502, http.Header{"Etag": nil}},
		"NaN":               {"GET", 200, `{"password":"x","a":NaN}`, []string{"Content-Type", "application/json"}, "Bad Gateway\n", 502, nil},
		"two documents":     {"GET", 200, `{"a":1}{"password":"x"}`, []string{"Content-Type", "application/problem+json"}, "Bad Gateway\n", 502, nil},
		"UTF-16":            {"GET", 200, "\xff\xfe{\x00}\x00", []string{"Content-Type", "application/json; charset=utf-16"}, "Bad Gateway\n", 502, nil},
		"not UTF-8":         {"GET", 200, "{\"p\xc1\xa1ssword\":1}", []string{"Content-Type", "text/x-json"}, "Bad Gateway\n", 502, nil},
		"deep":              {"GET", 200, strings.Repeat("[", 20_000) + strings.Repeat("]", 20_000), []string{"Content-Type", "application/json"}, "Bad Gateway\n", 502, nil},
		"byte order mark":   {"GET", 200, "\xef\xbb\xbf{\"password\":1}", []string{"Content-Type", "application/json"}, `{"by":"payment"}`, 200, nil},
		"doubled":           {"GET", 200, `{"password":1,"by":0,"passw\u006frd":2}`, []string{"Content-Type", "application/json"}, `{"by":"payment"}`, 200, nil},
		"not moved":         {"GET", 200, `{"a":1,"b":[]}`, []string{"Content-Type", "application/json"}, "Bad Gateway\n", 502, nil},
		"of two types":      {"GET", 200, `{"password":1}`, []string{"Content-Type", "text/plain, Application/JSON ; a=b"}, `{"by":"payment"}`, 200, nil},
		"a stream":          {"GET", 200, `{"user":1}` + "\n", []string{"Content-Type", "application/x-ndjson"}, `{"user":1}` + "\n", 200, nil},
		"a vendor's value":  {"GET", 200, `{"user":1}`, []string{"Content-Type", "application/vnd.acme.livestream+json"}, `{"user_data":1,"by":"payment"}`, 200, nil},
		"a vendor's stream": {"GET", 200, `{"user":1}` + "\n{}\n", []string{"Content-Type", "application/vnd.acme+ndjson"}, `{"user":1}` + "\n{}\n", 200, nil},
		"a stream of text":  {"GET", 200, `{"user":1}` + "\n{}\n", []string{"Content-Type", "text/jsonl"}, `{"user":1}` + "\n{}\n", 200, nil},
		"parts":             {"GET", 206, `{"a"`, []string{"Content-Type", "multipart/byteranges; boundary=a"}, "Bad Gateway\n", 502, nil},
		"reset content":     {"GET", 205, `{"password":1}`, []string{"Content-Type", "application/json"}, "", 205, nil},
		"blank":             {"GET", 200, "\n", []string{"Content-Type", "application/json"}, "\n", 200, nil},
		"empty":             {"GET", 200, ``, []string{"Content-Type", "application/json"}, ``, 200, http.Header{"Content-Length": {"0"}}},
		"not JSON":          {"GET", 200, `{"user":1}`, []string{"Content-Type", "text/plain", "Etag", `"v1"`, "Content-Length", "10"}, `{"user":1}`, 200, http.Header{"Etag": {`"v1"`}, "Content-Length": {"10"}}},
		"not to be held":    {"GET", 200, `{"user":1}`, []string{"Content-Type", "application/json", "Incremental", "?1"}, "Bad Gateway\n", 502, nil},
		"HEAD":              {"HEAD", 200, ``, []string{"Content-Type", "application/json", "Etag", `"v1"`, "Content-Length", "10"}, ``, 200, http.Header{"Etag": {`W/"v1"`}, "Content-Length": nil}},
		"not modified":      {"GET", 304, ``, []string{"Etag", `"v1"`}, ``, 304, http.Header{"Etag": {`W/"v1"`}}},
		"no content":        {"GET", 204, ``, []string{"Content-Type", "application/json"}, ``, 204, nil},
		"compressed":        {"GET", 200, "\x1f\x8b", []string{"Content-Type", "application/json", "Content-Encoding", "gzip", "X-Up", "1"}, "Bad Gateway\n", 502, http.Header{"Content-Encoding": nil, "X-Up": nil}},
		"compressed HEAD":   {"HEAD", 200, "", []string{"Content-Type", "application/json", "Content-Encoding", "gzip"}, "", 200, nil},
		"a part":            {"GET", 206, `{"a"`, []string{"Content-Type", "application/json", "Content-Range", "bytes 0-3/10"}, "Bad Gateway\n", 502, http.Header{"Content-Range": nil}},
		"a part of others":  {"GET", 206, `abcd`, []string{"Content-Type", "image/png", "Content-Range", "bytes 0-3/10"}, "abcd", 206, nil},
		"too large":         {"GET", 200, large, []string{"Content-Type", "application/json", "Content-Length", fmt.Sprint(len(large))}, "Bad Gateway\n", 502, http.Header{"Content-Length": {"12"}}},
		"too large for it":  {"GET", 200, large, []string{"Content-Type", "text/plain"}, large, 200, nil},
	} {
		handler := loadTransform(t, `{"response": {`+edits+`}}`)
		got := handler.serve(transformRequest(tc.method, "/", "", "Accept-Encoding", "gzip, br", "Range", "bytes=0-3", "If-Range", "x"), tc.status, tc.body, tc.fields...)
		if got.err != nil && tc.code != 502 || got.response.Code != tc.code || got.response.Body.String() != tc.want {
			t.Errorf("%s: got %d, %v and %.100q, want %d and %.100q", name, got.response.Code, got.err, got.response.Body, tc.code, tc.want)
		}
		for field, want := range tc.header {
			if have := got.response.Header()[field]; strings.Join(have, "|") != strings.Join(want, "|") {
				t.Errorf("%s: %s is %q, want %q", name, field, have, want)
			}
		}
		if sent := got.request.Header; sent.Get("Accept-Encoding") != "identity" || sent["Range"] != nil || sent["If-Range"] != nil {
			t.Errorf("%s: the backend was asked for %v", name, sent)
		}
	}
}

func TestStrictPermitsEmptyBodiesWithAnInvalidType(t *testing.T) {
	handler := loadTransform(t, `{"response": {"body": {"delete": ["password"]}, "strict": true}}`)
	for media, want := range map[string][2]int{"application/json charset=utf-8": {200, 502}, "": {200, 502}, "application/json": {200, 200}} {
		for i, body := range []string{"", `{}`} {
			got := handler.serve(transformRequest("GET", "/", ""), 200, body, "Content-Type", media, "Content-Length", fmt.Sprint(len(body)))
			if got.response.Code != want[i] {
				t.Errorf("%q and a body of %d bytes: got %d, want %d", media, len(body), got.response.Code, want[i])
			}
		}
	}
}

var took = regexp.MustCompile(`"processing_time":\d+(\.\d{1,3})?}$`)

func TestEnvelope(t *testing.T) {
	const rest = `,"request_id":"r1","service":"payment","processing_time":0}`
	for name, tc := range map[string]struct {
		status            int
		contentType, body string
		want              string
	}{
		"JSON":             {200, "application/json", " {\"a\": 1.0}\n", `{"status":200,"data":{"a": 1.0,"x":1}` + rest},
		"a list":           {200, "application/json", `[1]`, `{"status":200,"data":[1]` + rest},
		"mapped":           {500, "application/json", `{}`, `{"status":503,"data":{"x":1}` + rest},
		"text":             {404, "text/plain; charset=utf-8", "no \"such\"\nthing", `{"status":404,"data":"no \"such\"\nthing"` + rest},
		"empty":            {401, "application/json", "", `{"status":401,"data":null` + rest},
		"empty text":       {401, "text/plain", "", `{"status":401,"data":null` + rest},
		"no text":          {200, "text/plain", "\xff", "\xff"},
		"events":           {200, "text/event-stream", "data: 1\n\n", "data: 1\n\n"},
		"image":            {200, "image/png", "PNG", "PNG"},
		"no type":          {200, "", "{}", `{"status":200,"data":{"x":1}` + rest},
		"no type nor JSON": {200, "", "PNG", "PNG"},
		"no content":       {204, "application/json", "", ""},
		"none at all":      {410, "", "", `{"status":410,"data":null` + rest},
	} {
		handler := loadTransform(t, `{"response": {"envelope": true, "status": {"500": 503}, "body": {"set": {"x": 1}}}}`)
		fields := []string{"Content-Type", tc.contentType}
		if tc.contentType == "" {
			fields = nil
			if tc.body == "" {
				fields = []string{"Content-Length", "0"}
			}
		}
		got := handler.serve(transformRequest("GET", "/", "", "X-Request-Id", "r1"), tc.status, tc.body, fields...)
		body := got.response.Body.String()
		if wrapped := strings.HasSuffix(tc.want, rest); wrapped {
			if !took.MatchString(body) || got.response.Header().Get("Content-Type") != "application/json" || got.response.Header().Get("Content-Length") != fmt.Sprint(len(body)) {
				t.Errorf("%s: got %q with %v", name, body, got.response.Header())
			}
			body = took.ReplaceAllString(body, `"processing_time":0}`)
		}
		if body != tc.want || got.err != nil {
			t.Errorf("%s: got %q and %v, want %q", name, body, got.err, tc.want)
		}
	}
	// Without an ID from the client, the envelope contains the gateway's request ID.
	handler := loadTransform(t, `{"response": {"envelope": true}}`)
	got := handler.serve(transformRequest("GET", "/", ""), 200, "{}", "Content-Type", "application/json")
	if !regexp.MustCompile(`"request_id":"[0-9a-f-]{36}"`).MatchString(got.response.Body.String()) {
		t.Errorf("got %s", got.response.Body)
	}
}

// respond sends a request through a transform to a test handler.
func (t *Transform) respond(r *http.Request, next caddyhttp.HandlerFunc) (*httptest.ResponseRecorder, error) {
	w := httptest.NewRecorder()
	return w, t.ServeHTTP(w, r, next)
}

func TestResponseThatGrowsTooLargeIsRefused(t *testing.T) {
	handler := loadTransform(t, `{"max_body": 100, "response": {"body": {"set": {"a": 1}}}}`)
	for name, write := range map[string]func(io.Writer) (int64, error){
		"by pieces": func(w io.Writer) (n int64, err error) {
			for err == nil {
				_, err = io.WriteString(w, `"1234567890",`)
			}
			return n, err
		},
		"at once": func(w io.Writer) (int64, error) { return io.Copy(w, strings.NewReader(strings.Repeat("x", 1000))) },
	} {
		w, err := handler.respond(transformRequest("GET", "/", ""), func(w http.ResponseWriter, _ *http.Request) error {
			w.Header().Set("Content-Type", "application/json")
			w.Header().Set("X-Up", "1")
			if _, err := write(w); err != nil {
				panic(http.ErrAbortHandler) // like the reverse proxy
			}
			return nil
		})
		if err != nil || w.Code != 502 || w.Header().Get("X-Up") != "" || w.Body.String() != "Bad Gateway\n" {
			t.Errorf("%s: got %d, %v, %v and %q", name, w.Code, err, w.Header(), w.Body)
		}
	}
}

func TestPanicsGoOn(t *testing.T) {
	for _, config := range []string{`{"response": {"body": {"set": {"a": 1}}}}`, `{"response": {"envelope": true}}`, `{"response": {"headers": {"set": {"A": "1"}}}}`} {
		handler := loadTransform(t, config)
		for _, encoding := range []string{"", "gzip"} {
			func() {
				cause := any("mine")
				defer func() {
					if got := recover(); got != cause {
						t.Errorf("%s: the panic is %v, want %v", config, got, cause)
					}
				}()
				_, err := handler.respond(transformRequest("GET", "/", ""), func(w http.ResponseWriter, _ *http.Request) error {
					w.Header().Set("Content-Type", "application/json")
					w.Header().Set("Content-Encoding", encoding)
					_, _ = io.WriteString(w, `{}`)
					panic(cause)
				})
				t.Errorf("%s: there is no panic but %v", config, err)
			}()
		}
	}
}

func TestErrorsGoOn(t *testing.T) {
	handler := loadTransform(t, `{"response": {"body": {"set": {"a": 1}}, "headers": {"set": {"A": "1"}}}}`)
	for _, begun := range []bool{false, true} {
		failed := errors.New("failed")
		w, err := handler.respond(transformRequest("GET", "/", ""), func(w http.ResponseWriter, _ *http.Request) error {
			if begun {
				w.Header().Set("Content-Type", "application/json")
				w.Header().Set("Content-Length", "100")
				_, _ = io.WriteString(w, `{}`)
			}
			return failed
		})
		if err != failed || w.Body.Len() > 0 || len(w.Header()) > 0 {
			t.Errorf("begun %t: got %v, %v and %q", begun, err, w.Header(), w.Body)
		}
	}
}

func TestTrailersOfHeldResponsesAreDropped(t *testing.T) {
	handler := loadTransform(t, `{"response": {"body": {"set": {"a": 1}}}}`)
	w, err := handler.respond(transformRequest("GET", "/", ""), func(w http.ResponseWriter, _ *http.Request) error {
		w.Header().Set("Content-Type", "application/json")
		w.Header().Add("Trailer", "X-Sum, X-Other")
		_, _ = io.WriteString(w, `{}`)
		_ = http.NewResponseController(w).Flush()
		w.Header().Set("X-Sum", "1")
		w.Header().Set(http.TrailerPrefix+"X-More", "1")
		return nil
	})
	if err != nil || w.Body.String() != `{"a":1}` || len(w.Header()) != 2 {
		t.Errorf("got %v, %v and %q", err, w.Header(), w.Body)
	}
}

// watched records what is written to the client's connection.
type watched struct {
	*httptest.ResponseRecorder
	readFrom, flushed, hijacked int
	informed                    []int
}

func (w *watched) ReadFrom(r io.Reader) (int64, error) {
	w.readFrom++
	return io.Copy(w.ResponseRecorder, r)
}
func (w *watched) FlushError() error { w.flushed++; return nil }
func (w *watched) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	w.hijacked++
	return nil, nil, nil
}
func (w *watched) WriteHeader(status int) {
	if status < 200 {
		w.informed = append(w.informed, status)
		return
	}
	w.ResponseRecorder.WriteHeader(status)
}

// Responses whose body is not changed are streamed with ReadFrom.
func TestNothingIsHeldForNothing(t *testing.T) {
	for config, contentType := range map[string]string{
		`{"response": {"headers": {"set": {"A": "1"}}}}`:                                  "application/json",
		`{"response": {"headers": {"set": {"A": "1"}}, "body": {"set": {"a": 1}}}}`:       "text/event-stream",
		`{"response": {"headers": {"set": {"A": "1"}}, "envelope": true}}`:                "text/event-stream",
		`{"response": {"headers": {"set": {"A": "1"}}, "envelope": true, "status": {}}} `: "image/png",
	} {
		handler := loadTransform(t, config)
		w := &watched{ResponseRecorder: httptest.NewRecorder()}
		err := handler.ServeHTTP(w, transformRequest("GET", "/", ""), caddyhttp.HandlerFunc(func(inner http.ResponseWriter, _ *http.Request) error {
			inner.WriteHeader(103)
			inner.Header().Set("Content-Type", contentType)
			if err := http.NewResponseController(inner).Flush(); err != nil || w.flushed != 1 || w.Result().Header.Get("A") != "1" {
				t.Errorf("%s: the header is not sent: %v, %v", config, err, w.Result().Header)
			}
			for n := range 3 {
				_, _ = io.WriteString(inner, "data: 1\n\n")
				if w.Body.Len() != (n+1)*9 {
					t.Errorf("%s: %d bytes have come through", config, w.Body.Len())
				}
			}
			_, _ = inner.(io.ReaderFrom).ReadFrom(strings.NewReader("x"))
			return nil
		}))
		if err != nil || w.readFrom != 1 || len(w.informed) != 1 || w.Code != 200 {
			t.Errorf("%s: got %v, %d calls of ReadFrom, %v and %d", config, err, w.readFrom, w.informed, w.Code)
		}
	}
}

func TestUpgradesPass(t *testing.T) {
	handler := loadTransform(t, `{"response": {"envelope": true, "headers": {"set": {"A": "1"}}, "status": {"2xx": 500}}}`)
	w := &watched{ResponseRecorder: httptest.NewRecorder()}
	err := handler.ServeHTTP(w, transformRequest("GET", "/", ""), caddyhttp.HandlerFunc(func(inner http.ResponseWriter, _ *http.Request) error {
		inner.Header().Set("Content-Type", "application/json")
		inner.WriteHeader(101)
		_, _, err := http.NewResponseController(inner).Hijack()
		return err
	}))
	if err != nil || w.hijacked != 1 || len(w.informed) != 1 || w.informed[0] != 101 || w.Header().Get("A") != "1" || w.Body.Len() > 0 {
		t.Errorf("got %v, %d, %v, %v and %q", err, w.hijacked, w.informed, w.Header(), w.Body)
	}
}

func TestHandlerWithoutAResponse(t *testing.T) {
	handler := loadTransform(t, `{"response": {"headers": {"set": {"A": "1"}}, "status": {"200": 202}}}`)
	w, err := handler.respond(transformRequest("GET", "/", ""), func(http.ResponseWriter, *http.Request) error { return nil })
	if err != nil || w.Code != 202 || w.Header().Get("A") != "1" {
		t.Errorf("got %v, %d and %v", err, w.Code, w.Header())
	}
}
