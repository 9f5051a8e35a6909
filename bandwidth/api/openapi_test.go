package api

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"mime"
	"net/url"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// openAPIDoc is the part of an OpenAPI document that the test reads.
type openAPIDoc struct {
	OpenAPI    string
	Paths      map[string]map[string]*openAPIOperation
	Components struct {
		Parameters map[string]openAPIParameter
		Schemas    map[string]openAPISchema
		Responses  map[string]openAPIResponse
	}
}

type openAPIOperation struct {
	OperationID string
	Parameters  []openAPIParameter
	Responses   map[string]openAPIResponse
}

type openAPIParameter struct {
	Ref    string `json:"$ref"`
	Name   string
	Schema openAPISchema
}

type openAPIResponse struct {
	Ref     string `json:"$ref"`
	Headers map[string]struct{ Schema openAPISchema }
	Content map[string]struct{ Schema openAPISchema }
}

// openAPISchema is a decoded schema.
type openAPISchema map[string]any

func openAPIOf(t *testing.T) (doc *openAPIDoc) {
	t.Helper()
	api, _ := restServer()
	w := restAsk(t, api, "GET", restBase+"/openapi.json")
	if err := json.Unmarshal(w.Body.Bytes(), &doc); err != nil || w.Code != 200 {
		t.Fatalf("%d %v %s", w.Code, err, w.Body)
	}
	if !strings.HasPrefix(doc.OpenAPI, "3.1.") || strings.Contains(w.Body.String(), "{base}") {
		t.Errorf("it is version %s", doc.OpenAPI)
	}
	return doc
}

func (doc *openAPIDoc) parameter(p openAPIParameter) openAPIParameter {
	if name, ok := strings.CutPrefix(p.Ref, "#/components/parameters/"); ok {
		return doc.Components.Parameters[name]
	}
	return p
}

func (doc *openAPIDoc) response(r openAPIResponse) openAPIResponse {
	if name, ok := strings.CutPrefix(r.Ref, "#/components/responses/"); ok {
		return doc.Components.Responses[name]
	}
	return r
}

// openAPIKeywords are the schema keywords that check supports.
var openAPIKeywords = []string{"$ref", "type", "enum", "pattern", "format", "properties", "required", "additionalProperties", "items", "minimum", "maxItems", "description", "default"}

// check returns an error if a value does not match a schema.
func (doc *openAPIDoc) check(s openAPISchema, value any, at string) error {
	for word := range s {
		if !slices.Contains(openAPIKeywords, word) {
			return fmt.Errorf("%s: the test does not know the word %q", at, word)
		}
	}
	if ref, ok := s["$ref"].(string); ok {
		target, ok := doc.Components.Schemas[strings.TrimPrefix(ref, "#/components/schemas/")]
		if !ok {
			return fmt.Errorf("%s: there is no %s", at, ref)
		}
		return doc.check(target, value, at)
	}
	types := []any{s["type"]}
	if several, ok := s["type"].([]any); ok {
		types = several
	}
	is := openAPITypeOf(value)
	if is == "integer" && slices.Contains(types, "number") {
		is = "number"
	}
	if s["type"] != nil && !slices.Contains(types, is) {
		return fmt.Errorf("%s: %v is no %v", at, value, types)
	}
	if enum, ok := s["enum"].([]any); ok && !slices.Contains(enum, value) {
		return fmt.Errorf("%s: %v is none of %v", at, value, enum)
	}
	switch value := value.(type) {
	case string:
		if pattern, ok := s["pattern"].(string); ok && !regexp.MustCompile(pattern).MatchString(value) {
			return fmt.Errorf("%s: %q does not match %s", at, value, pattern)
		}
		if s["format"] == "date-time" {
			if _, err := time.Parse(time.RFC3339Nano, value); err != nil {
				return fmt.Errorf("%s: %w", at, err)
			}
		}
	case float64:
		if least, ok := s["minimum"].(float64); ok && value < least {
			return fmt.Errorf("%s: %v is below %v", at, value, least)
		}
	case []any:
		return doc.checkList(s, value, at)
	case map[string]any:
		return doc.checkObject(s, value, at)
	}
	return nil
}

func (doc *openAPIDoc) checkList(s openAPISchema, list []any, at string) error {
	items, _ := s["items"].(map[string]any)
	for i, item := range list {
		if err := doc.check(items, item, fmt.Sprintf("%s[%d]", at, i)); err != nil {
			return err
		}
	}
	return nil
}

func (doc *openAPIDoc) checkObject(s openAPISchema, object map[string]any, at string) error {
	properties, _ := s["properties"].(map[string]any)
	for name, value := range object {
		property, ok := properties[name].(map[string]any)
		if !ok {
			if s["additionalProperties"] == false {
				return fmt.Errorf("%s: it must not have %q", at, name)
			}
			continue
		}
		if err := doc.check(property, value, at+"."+name); err != nil {
			return err
		}
	}
	required, _ := s["required"].([]any)
	for _, name := range required {
		if _, ok := object[name.(string)]; !ok {
			return fmt.Errorf("%s: it has no %q", at, name)
		}
	}
	return nil
}

func openAPITypeOf(value any) any {
	switch value := value.(type) {
	case nil:
		return "null"
	case bool:
		return "boolean"
	case string:
		return "string"
	case float64:
		if value == float64(int64(value)) {
			return "integer"
		}
		return "number"
	case []any:
		return "array"
	default:
		return "object"
	}
}

// openAPIExamples are valid and invalid values of each parameter.
var openAPIExamples = map[string]struct{ right, wrong []string }{
	"lookback_duration": {[]string{"5m", "0m", "90m"}, []string{"5", "1h", "m"}},
	"from":              {[]string{"2026-03-01T12:00:00Z", "1772366400", "2026-03-01T12:00:00.5+01:00"}, []string{"yesterday", "2026-03-01"}},
	"to":                {[]string{"2026-03-01T12:10:00Z", "1772367000"}, []string{"now"}},
	"step":              {[]string{"1m", "15m", "1h", "1d"}, []string{"1", "1w", "7m"}},
	"type":              {[]string{"egress", "ingress"}, []string{"both", ""}},
	"service":           {[]string{"payment", "nobody"}, nil},
	"route":             {[]string{"/pay"}, nil},
	"consumer":          {[]string{"alice"}, nil},
	"gateway":           {[]string{"gw-1"}, nil},
	"group_by":          {[]string{"service", "service,route,consumer,gateway"}, []string{"backend"}},
	"headers":           {[]string{"true", "false"}, []string{"1"}},
	"format":            {[]string{"json", "csv"}, []string{"xml"}},
}

// TestOpenAPIDescribesWhatIsServed tests every path, parameter, status and schema of the
// document.
func TestOpenAPIDescribesWhatIsServed(t *testing.T) {
	doc := openAPIOf(t)
	for path, methods := range doc.Paths {
		op := methods["get"]
		if op == nil || len(methods) != 1 {
			t.Fatalf("%s has %v", path, methods)
		}
		seen := make(map[string]bool)
		try := func(method, query string, failing bool, headers ...string) int {
			t.Helper()
			api, ledger := restServer()
			if failing {
				ledger.err = errors.New("away")
			}
			w := restAsk(t, api, method, path+query, headers...)
			status := fmt.Sprint(w.Code)
			seen[status] = true
			response, ok := op.Responses[status]
			if !ok {
				t.Errorf("%s %s%s: the document has no status %s", method, path, query, status)
				return w.Code
			}
			if err := doc.checkResponse(response, w.Header(), w.Body.Bytes()); err != nil {
				t.Errorf("%s %s%s: %v: %s", method, path, query, err, w.Body)
			}
			return w.Code
		}

		try("GET", "", false)
		try("GET", "", true)
		try("POST", "", false)
		try("GET", "", false, "If-None-Match", "*")
		if status := try("GET", "?nonsense=1", false); status != 400 {
			t.Errorf("%s: an unknown parameter has status %d", path, status)
		}
		for _, ref := range op.Parameters {
			p := doc.parameter(ref)
			examples, ok := openAPIExamples[p.Name]
			if !ok || len(examples.right) == 0 {
				t.Fatalf("there is no example of the parameter %q of %s", p.Name, path)
			}
			also := ""
			if p.Name == "to" {
				also = "&from=2026-03-01T12:00:00Z"
			}
			for _, value := range examples.right {
				if err := doc.checkParameter(p, value); err != nil {
					t.Errorf("%s: %v", path, err)
				}
				if status := try("GET", "?"+p.Name+"="+url.QueryEscape(value)+also, false); status != 200 {
					t.Errorf("%s?%s=%s has status %d", path, p.Name, value, status)
				}
			}
			for _, value := range examples.wrong {
				if status := try("GET", "?"+p.Name+"="+url.QueryEscape(value)+also, false); status != 400 {
					t.Errorf("%s?%s=%s has status %d", path, p.Name, value, status)
				}
			}
		}
		if want := slices.Sorted(maps.Keys(op.Responses)); !slices.Equal(want, slices.Sorted(maps.Keys(seen))) {
			t.Errorf("%s: the document has the statuses %v, seen were %v", path, want, slices.Sorted(maps.Keys(seen)))
		}
	}
}

// checkParameter validates a value against a parameter's schema.
func (doc *openAPIDoc) checkParameter(p openAPIParameter, value string) error {
	if p.Schema["type"] != "array" {
		return doc.check(p.Schema, value, p.Name)
	}
	list := []any{value}
	if p.Name == "group_by" {
		list = nil
		for one := range strings.SplitSeq(value, ",") {
			list = append(list, one)
		}
	}
	return doc.check(p.Schema, list, p.Name)
}

// checkResponse validates a response against its description.
func (doc *openAPIDoc) checkResponse(described openAPIResponse, header map[string][]string, body []byte) error {
	described = doc.response(described)
	for name, one := range described.Headers {
		values := header[name]
		if name == "ETag" {
			values = header["Etag"]
		}
		if len(values) == 0 {
			return fmt.Errorf("the header %s is missing", name)
		}
		if err := doc.check(one.Schema, values[0], name); err != nil {
			return err
		}
	}
	if len(described.Content) == 0 {
		if len(body) > 0 {
			return errors.New("there is a body")
		}
		return nil
	}
	kind, _, err := mime.ParseMediaType(strings.Join(header["Content-Type"], ""))
	if err != nil {
		return err
	}
	content, ok := described.Content[kind]
	if !ok {
		return fmt.Errorf("the document has no %s", kind)
	}
	if kind == "text/csv" {
		return doc.check(content.Schema, string(body), kind)
	}
	var value any
	if err := json.Unmarshal(body, &value); err != nil {
		return err
	}
	return doc.check(content.Schema, value, "body")
}

// TestOpenAPIHasAllParameters tests that the document describes all parameters.
func TestOpenAPIHasAllParameters(t *testing.T) {
	doc := openAPIOf(t)
	for path, want := range map[string][]string{restBase: seriesParams, restBase + "/total": totalParams, restBase + "/names": {"from"}} {
		var got []string
		for _, p := range doc.Paths[path]["get"].Parameters {
			got = append(got, doc.parameter(p).Name)
		}
		slices.Sort(got)
		if want := slices.Sorted(slices.Values(want)); !reflect.DeepEqual(got, want) {
			t.Errorf("%s has %v, want %v", path, got, want)
		}
	}
	api, _ := restServer()
	for path := range doc.Paths {
		if api.reportAt(strings.TrimPrefix(path, restBase)) == nil {
			t.Errorf("%s is not served", path)
		}
	}
}

func TestOpenAPITestFindsFaults(t *testing.T) {
	doc := openAPIOf(t)
	point := doc.Components.Schemas["Point"]
	right := map[string]any{"time": "2026-03-01T12:34:00+00:00", "type": "egress", "service": nil, "route": "r", "bandwidth_used": 1.0}
	if err := doc.check(point, right, "point"); err != nil {
		t.Error(err)
	}
	for name, value := range map[string]any{"time": "12:34", "type": "up", "route": 1.0, "bandwidth_used": 1.5, "extra": 1.0, "gateway": true} {
		wrong := maps.Clone(right)
		wrong[name] = value
		if doc.check(point, wrong, "point") == nil {
			t.Errorf("%s: %v is taken for right", name, value)
		}
	}
	delete(right, "time")
	if doc.check(point, right, "point") == nil {
		t.Error("a point without a time is taken for right")
	}
}
