package integration

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"unicode/utf16"
)

// redactionBackend starts a backend whose responses contain a secret. responses maps a
// path to status, Content-Type and body.
func redactionBackend(t *testing.T, responses map[string][3]string) string {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		response := responses[strings.TrimPrefix(strings.TrimPrefix(r.URL.Path, "/strict"), "/lenient")]
		header := w.Header()
		header["Content-Type"] = nil
		if response[1] != "" {
			header["Content-Type"] = strings.Split(response[1], "\n")
		}
		switch {
		case strings.HasSuffix(r.URL.Path, "/gzip"), strings.HasSuffix(r.URL.Path, "/br"):
			header.Set("Content-Encoding", r.URL.Path[strings.LastIndexByte(r.URL.Path, '/')+1:])
		case strings.HasSuffix(r.URL.Path, "/206"):
			header.Set("Content-Range", "bytes 0-3/100")
		case strings.HasSuffix(r.URL.Path, "/cut"):
			header.Set("Content-Length", "1000")
		case strings.HasSuffix(r.URL.Path, "/incremental"):
			header.Set("Incremental", "?1")
		case strings.HasSuffix(r.URL.Path, "/early"):
			header.Set("X-Secret", "secret")
			w.WriteHeader(http.StatusEarlyHints)
			header.Del("X-Secret")
		case strings.HasSuffix(r.URL.Path, "/trailers"):
			header.Set("Trailer", "X-Secret")
			defer func() {
				header.Set("X-Secret", "secret")
				header.Set(http.TrailerPrefix+"X-Token", "secret")
			}()
		}
		status := http.StatusOK
		_, _ = fmt.Sscan(response[0], &status)
		w.WriteHeader(status)
		_, _ = io.WriteString(w, response[2])
	}))
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

// A value to delete must not be leaked when the body cannot be parsed.
func TestD3NothingComesOutOfABodyThatCannotBeRead(t *testing.T) {
	t.Parallel()
	const json = "application/json"
	var wide strings.Builder
	wide.WriteString("\xff\xfe")
	for _, unit := range utf16.Encode([]rune(`{"secret":"secret"}`)) {
		wide.WriteString(string([]byte{byte(unit), byte(unit >> 8)}))
	}
	var zipped bytes.Buffer
	z := gzip.NewWriter(&zipped)
	_, _ = io.WriteString(z, `{"secret":"secret"}`)
	must(t, "compressing", z.Close())
	all := map[string][3]string{
		// Rejected.
		"/nan":          {"200", json, `{"secret":"secret","a":NaN}`},
		"/utf16":        {"200", json + "; charset=utf-16", wide.String()},
		"/utf16bare":    {"200", json, strings.TrimPrefix(wide.String(), "\xff\xfe")},
		"/two":          {"200", json, `{"a":1}` + "\n" + `{"secret":"secret"}`},
		"/deep":         {"200", json, `{"secret":"secret","a":` + strings.Repeat("[", 20_000) + strings.Repeat("]", 20_000) + `}`},
		"/half":         {"200", json, `{"secret":"secret"`},
		"/cut":          {"200", json, `{"secret":"secret"}`},
		"/gzip":         {"200", json, zipped.String()},
		"/br":           {"200", json, "\x8b\x09\x80secret\x03"},
		"/large":        {"200", json, `{"secret":"secret","a":"` + strings.Repeat("x", 2<<20) + `"}`},
		"/latin":        {"200", json, "{\"secret\":\"secret\",\"a\":\"\xe9\"}"},
		"/overlong":     {"200", json, "{\"s\xc1\xa5cret\":\"secret\"}"},
		"/comment":      {"200", "application/problem+json", `{"secret":"secret"/**/}`},
		"/boms":         {"200", json, "\ufeff\ufeff{\"secret\":\"secret\"}"},
		"/error":        {"500", "application/problem+json; charset=utf-8", `{"secret":'secret'}`},
		"/206":          {"206", json, `{"secret":"secret"}`},
		"/ranges/206":   {"206", "multipart/byteranges; boundary=x", "--x\r\nContent-Type: application/json\r\n\r\n{\"secret\":\"secret\"}\r\n--x--\r\n"},
		"/incremental":  {"200", json, `{"secret":"secret"}`},
		"/types":        {"200", "text/plain\n" + json, `{"secret":"secret"`},
		"/combined":     {"200", "text/plain, " + json, `{"secret":"secret"`},
		"/experimental": {"200", "application/x-json", `{"secret":"secret"`},
		// Edited.
		"/good":     {"200", json, `{"a":1,"secret":"secret"}`},
		"/bom":      {"200", json, "\ufeff{\"a\":1,\"secret\":\"secret\"}"},
		"/double":   {"200", json, `{"secret":"secret","a":1,"s\u0065cret":{"secret":1}}`},
		"/upper":    {"404", "APPLICATION/Vnd.Api+JSON;a=b", `{"a":1,"s\u0065c\u0072et":"secret"}`},
		"/early":    {"200", json, `{"a":1}`},
		"/trailers": {"200", "text/plain", "text"},
		// Forwarded unchanged.
		"/204": {"204", json, ""}, "/304": {"304", json, ""}, "/blank": {"200", json, ""},
		"/html": {"200", "text/html", "<secret>"}, "/png": {"200", "image/png", "secret"},
		"/205": {"205", json, `{"secret":"secret"}`},
		// Rejected only with strict.
		"/ndjson": {"200", "application/x-ndjson", `{"secret":"secret"}` + "\n"}, "/seq": {"200", "application/json-seq", "\x1e{\"secret\":\"secret\"}\n"},
		"/events": {"200", "text/event-stream", "data: {\"secret\":\"secret\"}\n\n"},
		"/stream": {"200", "application/stream+json", `{"secret":"secret"}`},
	}
	backend := redactionBackend(t, all)
	const edits = `headers: {delete: [X-Secret], rename: {X-Token: X-Other}}, body: {delete: [secret]}`
	g := startGateway(t, `
routes:
  - {path_prefix: /, backend: b, transform: {response: {`+edits+`}}}
  - {path_prefix: /strict, backend: b, transform: {response: {`+edits+`, strict: true}}}
backends: [{name: b, dial: ["`+backend+`"]}]`)
	site := launch(t, "Caddyfile", "{\n\tadmin localhost:$ADMIN\n}\n:$PORT {\n\trgate_transform {\n\t\tresponse {\n\t\t\tbody {\n\t\t\t\tdelete secret\n\t\t\t}\n\t\t}\n\t}\n\treverse_proxy "+backend+"\n}\n",
		nil, "run", "--config", "$FILE")

	refused := strings.Fields("/nan /utf16 /utf16bare /two /deep /half /cut /gzip /br /large /latin /overlong /comment /boms /error /206 /ranges/206 /incremental /types /combined /experimental")
	for _, path := range refused {
		for what, g := range map[string]*gateway{"gateway": g, "site": site} {
			got := g.ask(t, "GET", path, "", "Accept-Encoding", "gzip, br", "Range", "bytes=0-5")
			if got.status != http.StatusBadGateway || strings.Contains(got.body, "secret") {
				t.Errorf("%s of the %s: got %d and %.80q, want 502 and nothing of the body", path, what, got.status, got.body)
			}
		}
		if got := g.ask(t, "HEAD", path, ""); got.body != "" || got.status == http.StatusBadGateway {
			t.Errorf("HEAD %s: got %d and %q", path, got.status, got.body)
		}
	}
	for _, path := range strings.Fields("/good /bom /double /upper /early") {
		if got := g.get(t, path); got.body != `{"a":1}` || got.header["X-Secret"] != nil {
			t.Errorf("%s: got %q with %v", path, got.body, got.header)
		}
	}
	for path, status := range map[string]int{"/204": 204, "/304": 304, "/blank": 200, "/html": 200, "/png": 200, "/205": 205} {
		want := all[path][2]
		if status == 205 {
			want = "" // RFC 9110, section 15.3.6
		}
		if got := g.get(t, "/strict"+path); got.status != status || got.body != want {
			t.Errorf("%s: got %d and %q", path, got.status, got.body)
		}
	}
	for _, path := range strings.Fields("/ndjson /seq /events /stream") {
		if got := g.get(t, path); got.status != 200 || got.body != all[path][2] {
			t.Errorf("%s: got %d and %q, want what is documented: it passes", path, got.status, got.body)
		}
		if got := g.get(t, "/strict"+path); got.status != http.StatusBadGateway || strings.Contains(got.body, "secret") {
			t.Errorf("%s with strict: got %d and %q", path, got.status, got.body)
		}
	}
	if got := g.get(t, "/trailers"); len(got.trailer["X-Secret"])+len(got.trailer["X-Token"]) > 0 {
		t.Errorf("the trailers are %v", got.trailer)
	}
	if text := g.raw(t, "GET /early HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"); !strings.Contains(text, " 103 ") || strings.Contains(text, "secret") {
		t.Errorf("with early hints: %q", text)
	}
	const warning = "are rejected with 502 if transform edits the body"
	if lines := g.logged(warning); len(lines) != 1 || !strings.Contains(lines[0], `["/"]`) {
		t.Errorf("the warnings at the start are %q", lines)
	}
	if lines := site.logged(warning); len(lines) != 1 {
		t.Errorf("the warnings of the site are %q", lines)
	}

	g.load(t, `
listen: ":`+strings.TrimPrefix(g.address(), "127.0.0.1:")+`"
admin: localhost:`+fmt.Sprint(g.admin)+`
legacy: [unreadable_json]
routes: [{path_prefix: /, backend: b, transform: {response: {`+edits+`}}}]
backends: [{name: b, dial: ["`+backend+`"]}]`)
	if got := g.get(t, "/half"); got.status != 200 || got.body != all["/half"][2] {
		t.Errorf("as in earlier versions: got %d and %q", got.status, got.body)
	}
	if lines := g.logged(warning); len(lines) != 1 {
		t.Errorf("the warnings with legacy are %q", lines)
	}
}

// Bodies are transformed even if their Content-Type cannot be parsed.
func TestRedactionDoesNotDependOnAReadableType(t *testing.T) {
	t.Parallel()
	const secret, half = `{"a":1,"secret":"secret"}`, `{"secret":"secret"`
	all, types := make(map[string][3]string), map[string]string{
		"space": "application/json charset=utf-8", "bare": "json", "quoted": `"application/json"`, "combined": "application/json,text/html",
		"semicolons": "application/json;;", "missing": "", "upper": "APPLICATION/JSON", "two": "text/html\napplication/json", "same": "application/json\napplication/json",
		"last": "application/json\ntext/html", "apostrophes": "'application/json'", "colon": "Content-Type: application/json", "blank": " ", "slash": "application/", "star": "*/*;",
		"other": "utf-8", "parameter": "charset=utf-8; application/json", "hidden": "text/plain; charset=x, application/json", "bytes": "application/json\xa0",
		"json5": "application/json5", "vendor": "application/vnd.json.v2", "angles": "<application/json>", "problem": "application/problem +json",
		"stream": "application/x-ndjson charset=utf-8,application/json",
	}
	for name, media := range types {
		all["/"+name], all["/half/"+name] = [3]string{"200", media, "\ufeff \n" + secret}, [3]string{"200", media, half}
	}
	large := strings.Repeat("x", 3<<20)
	all["/large"], all["/image"], all["/lines"] = [3]string{"200", "", large}, [3]string{"200", "image", "\x89PNG secret"}, [3]string{"200", "", "\n\n"}
	all["/wide"], all["/sequence"] = [3]string{"200", "", "\xfe\xff\x00{\x00}secret"}, [3]string{"200", "", "\x1e{\"secret\":1}"}
	all["/large/json"], all["/blanks"] = [3]string{"200", "", `{"secret":"` + large + `"}`}, [3]string{"200", "", strings.Repeat(" ", 600) + secret}
	all["/gzip"], all["/206"], all["/head"] = [3]string{"200", "", "\x1f\x8bsecret"}, [3]string{"206", "", "secret"}, all["/missing"]
	backend := redactionBackend(t, all)
	g := startGateway(t, `
routes:
  - {path_prefix: /, backend: b, transform: {response: {body: {delete: [secret]}}, request: {body: {delete: [secret]}}}}
  - {path_prefix: /strict, backend: b, transform: {response: {body: {delete: [secret]}, strict: true}}}
backends: [{name: b, dial: ["`+backend+`"]}]`)

	for name, media := range types {
		if got := g.get(t, "/"+name); got.status != 200 || got.body != `{"a":1}` && got.body != " \n"+`{"a":1}` {
			t.Errorf("%s: got %d and %q", media, got.status, got.body)
		}
		if got := g.get(t, "/half/"+name); got.status != http.StatusBadGateway || strings.Contains(got.body, "secret") {
			t.Errorf("%s and half a body: got %d and %q", media, got.status, got.body)
		}
		got, clear := g.get(t, "/strict/"+name), slices.Contains([]string{"upper", "json5", "vendor", "apostrophes"}, name)
		if clear != (got.status == 200) || !clear && got.status != http.StatusBadGateway || strings.Contains(got.body, "secret") {
			t.Errorf("%s with strict: got %d and %q", media, got.status, got.body)
		}
	}
	for _, path := range strings.Fields("/large /image /lines") {
		if got := g.get(t, path); got.status != 200 || got.body != all[path][2] {
			t.Errorf("%s: got %d and %.40q, want it as it is", path, got.status, got.body)
		}
	}
	for _, path := range strings.Fields("/wide /sequence /large/json /gzip /206") {
		if got := g.get(t, path); got.status != http.StatusBadGateway || strings.Contains(got.body, "secret") {
			t.Errorf("%s: got %d and %.40q, want 502", path, got.status, got.body)
		}
	}
	if got := g.get(t, "/blanks"); got.status != 200 || strings.TrimSpace(got.body) != `{"a":1}` {
		t.Errorf("after many blanks: got %d and %.40q", got.status, got.body)
	}
	if got := g.ask(t, "HEAD", "/head", ""); got.status != 200 || got.length > 0 {
		t.Errorf("HEAD: got %d and the length %d", got.status, got.length)
	}
	for media, status := range map[string]int{"application/json charset=utf-8": 400, "json": 400, "": 400, "text/plain": 200, "application/json;;": 400, "text/html, application/json": 400} {
		request := g.request(t, "POST", "/upper", half)
		if request.Header["Content-Type"] = nil; media != "" {
			request.Header.Set("Content-Type", media)
		}
		got, err := do(g.client, request)
		if must(t, "sending a request", err); got.status != status {
			t.Errorf("a request of %q: got %d, want %d", media, got.status, status)
		}
	}
}
