package transform

import (
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/rgate/rgate/internal/options"
)

func TestTransformOptions(t *testing.T) {
	for config, want := range map[string]struct{ field, message string }{
		`{}`: {},
		`{"request": {"headers": {"set": {"X-A": "b"}, "delete": ["X-C"]}, "body": {"set": {"api_version": "v2"}, "rename": {"user_data": "user"}}}}`: {},
		`{"request": {"path": "/v2/{http.rgate.param.id}%20/x", "method": "PATCH", "query": {"set": {"a b": "\n"}}}}`:                                 {},
		`{"response": {"status": {"404": 204, "5xx": 503}, "envelope": true, "body": {"delete": ["*.a"], "rename": {"a.b": "x", "c.b": "x"}}}}`:       {},
		`{"max_body": "3GiB"}`:                                                {"max_body", "2GiB"},
		`{"request": {"headers": {"set": {"X A": "b"}}}}`:                     {"request.headers.set.X A", "invalid header field name"},
		`{"request": {"headers": {"add": {"X-A": "b\r\nX-B: c"}}}}`:           {"request.headers.add.X-A", "one line"},
		`{"request": {"headers": {"delete": ["Content-length"]}}}`:            {"request.headers.delete", "Content-Length cannot be changed"},
		`{"response": {"headers": {"rename": {"X-A": "transfer-encoding"}}}}`: {"response.headers.rename.X-A", "Transfer-Encoding cannot be changed"},
		`{"request": {"headers": {"delete": ["host"]}}}`:                      {"request.headers.delete", "Host cannot be added, deleted or renamed"},
		`{"response": {"headers": {"set": {"Host": "a"}}}}`:                   {"response.headers.set.Host", "Host cannot be set in a response"},
		`{"request": {"headers": {"delete": [""]}}}`:                          {"request.headers.delete", "empty"},
		`{"request": {"headers": {"rename": {"X-A": "X-B", "x-b": "X-C"}}}}`:  {"request.headers.rename.X-A", "which is also renamed"},
		`{"request": {"query": {"rename": {"a": "c", "b": "c"}}}}`:            {"request.query.rename.b", "cannot both be renamed"},
		`{"request": {"method": "get"}}`:                                      {"request.method", "invalid method"},
		`{"request": {"method": "HEAD"}}`:                                     {"request.method", "invalid method"},
		`{"request": {"path": "a"}}`:                                          {"request.path", "use /a"},
		`{"request": {"path": "/a?b=c"}}`:                                     {"request.path", "use the option query"},
		`{"request": {"path": "/a b"}}`:                                       {"request.path", "%20"},
		`{"request": {"path": "/a%zz"}}`:                                      {"request.path", "must be percent-encoded"},
		`{"request": {"path": "/a/../b"}}`:                                    {"request.path", "dot segments"},
		`{"request": {"path": "//a"}}`:                                        {"request.path", "two slashes"},
		`{"request": {"path": "/{a"}}`:                                        {"request.path", "%7B"},
		`{"request": {"body": {"delete": ["a..b"]}}}`:                         {"request.body.delete", "empty name"},
		`{"request": {"body": {"rename": {"a.*": "b"}}}}`:                     {"request.body.rename.a.*", "must end with a member name"},
		`{"request": {"body": {"rename": {"a": ""}}}}`:                        {"request.body.rename.a", "use delete"},
		`{"request": {"body": {"rename": {".": "a"}}}}`:                       {"request.body.rename..", "empty name"},
		`{"request": {"body": {"rename": {"x.a": "b", "x.b": "c"}}}}`:         {"request.body.rename.x.a", "which is also renamed"},
		`{"request": {"body": {"move": {"a.*.b": "c"}}}}`:                     {"request.body.move.a.*.b", "use an index"},
		`{"request": {"body": {"move": {"a": "c."}}}}`:                        {"request.body.move.a", "empty name"},
		`{"response": {"body": {"move": {"a": "b", "b": "a"}}}}`:              {"response.body.move.a", "which is also renamed"},
		`{"request": {"body": {"set": {"": 1}}}}`:                             {"request.body.set.", "empty name"},
		`{"request": {"body": {"set": {"a": "json:x{test}"}}}}`:               {"request.body.set.a", "json:5"},
		`{"request": {"body": {"template": "{a}"}}}`:                          {"request.body.template", "not valid JSON"},
		`{"request": {"body": {"template": {"a": "json:nope"}}}}`:             {"request.body.template", "json:"},
		`{"request": {"body": {"template": {}, "set": {"a": 1}}}}`:            {"request.body.template", "template cannot be combined with delete, rename, move or set"},
		`{"response": {"status": {"99": 200}}}`:                               {"response.status.99", "a class such as 5xx"},
		`{"response": {"status": {"6xx": 200}}}`:                              {"response.status.6xx", "a class such as 5xx"},
		`{"response": {"status": {"2x4": 200}}}`:                              {"response.status.2x4", "a class such as 5xx"},
		`{"response": {"status": {"304": 200}}}`:                              {"response.status.304", "other than 206 and 304"},
		`{"response": {"status": {"404": 101}}}`:                              {"response.status.404", "invalid status 101"},
	} {
		handler := new(Transform)
		if err := json.Unmarshal([]byte(config), handler); err != nil {
			t.Fatalf("%s: %v", config, err)
		}
		err := handler.Check()
		if want.message == "" {
			if err != nil {
				t.Errorf("%s: %v", config, err)
			}
			continue
		}
		var option *options.Error
		if !errors.As(err, &option) || option.Field() != want.field || !strings.Contains(option.Error(), want.message) {
			t.Errorf("%s: got %v about %v, want %q about %s", config, err, option, want.message, want.field)
		}
	}
}

func TestTransformInCaddyfile(t *testing.T) {
	for text, want := range map[string]string{
		`rgate_transform off`: `{"disabled": true}`,
		`rgate_transform {
			max_body 64KiB
			request {
				headers {
					set X-A b
					set X-B {http.request.uuid}
					delete X-C X-D
					rename X-E X-F
					add {
						X-G h
					}
				}
				query {
					set version 2
					delete debug
				}
				method PUT
				path /v2/users/{http.rgate.param.id}
				body {
					set api_version v2
					set count json:5
					set user.tags "json:[\"a\", true]"
					set id json:{http.rgate.param.id}
					rename user_data user
					delete secret internal.*.id
					move a b.c
				}
			}
			response {
				headers {
					delete Server
				}
				status 404 204
				status 5xx 503
				body {
					delete password
				}
				envelope
			}
		}`: `{"max_body": 65536, "request": {"headers": {"set": {"X-A": "b", "X-B": "{http.request.uuid}"}, "delete": ["X-C", "X-D"], "rename": {"X-E": "X-F"}, "add": {"X-G": "h"}},
			"query": {"set": {"version": "2"}, "delete": ["debug"]}, "method": "PUT", "path": "/v2/users/{http.rgate.param.id}",
			"body": {"set": {"api_version": "v2", "count": 5, "user.tags": ["a", true], "id": "json:{http.rgate.param.id}"}, "rename": {"user_data": "user"}, "delete": ["secret", "internal.*.id"], "move": {"a": "b.c"}}},
			"response": {"headers": {"delete": ["Server"]}, "status": {"404": 204, "5xx": 503}, "body": {"delete": ["password"]}, "envelope": true}}`,
		"rgate_transform {\nrequest {\nbody {\ntemplate `{\"a\": \"{http.request.uuid}\"}`\n}\n}\n}": `{"request": {"body": {"template": "{\"a\": \"{http.request.uuid}\"}"}}}`,
	} {
		d := caddyfile.NewTestDispenser(text)
		d.Next()
		got, parsed := new(Transform), new(Transform)
		if err := options.Unmarshal(d, got); err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if err := json.Unmarshal([]byte(want), parsed); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(asJSONTree(t, got), asJSONTree(t, parsed)) {
			t.Errorf("%s: got %v, want %v", text, asJSONTree(t, got), asJSONTree(t, parsed))
		}
	}
	for text, want := range map[string]string{
		"rgate_transform on":                                                        "unexpected argument",
		"rgate_transform {\nrequst {\n}\n}":                                         `did you mean "request"`,
		"rgate_transform {\nrequest {\nheaders {\nset X-A\n}\n}\n}":                 "requires a value",
		"rgate_transform {\nresponse {\nstatus 404 no\n}\n}":                        "a whole number",
		"rgate_transform {\nresponse {\nstatus 404 101\n}\n}":                       "invalid status 101: must be 200 to 599 other than 206 and 304, at Testfile:3",
		"rgate_transform {\nrequest {\nbody {\nset a json:nope\n}\n}\n}":            "must be followed by JSON or a single placeholder: use json:5 or json:{http.rgate.body.id}, at Testfile:4",
		"rgate_transform {\nrequest {\nheaders {\ndelete A Content-Length\n}\n}\n}": "at Testfile:4",
	} {
		d := caddyfile.NewTestDispenser(text)
		d.Next()
		if err := options.Unmarshal(d, new(Transform)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want something with %q", text, err, want)
		}
	}
}

func asJSONTree(t *testing.T, value any) (tree any) {
	t.Helper()
	text, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	return decode(t, string(text))
}
