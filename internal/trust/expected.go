package trust

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// FieldReader is a module that reads request fields, named in its options, in addition
// to those in placeholders.
type FieldReader interface {
	// RequestFields returns the names of the request fields that the module reads.
	RequestFields() []string
}

// fieldPlaceholder matches the placeholder of a request field, and its shorthand.
var fieldPlaceholder = regexp.MustCompile(`\{(?:http\.request\.)?header\.([^{}"\\]+)\}`)

// requestFields returns the names of the request fields that a module and its nested
// modules read: those in placeholders and those of FieldReader.
func requestFields(module any) (names []string) {
	if reader, ok := module.(FieldReader); ok {
		names = reader.RequestFields()
	}
	options, err := json.Marshal(module)
	if err != nil {
		return names
	}
	for _, found := range fieldPlaceholder.FindAllSubmatch(options, -1) {
		names = append(names, string(found[1]))
	}
	return names
}

// ExpectedFields returns the request fields that a module reads and whose names contain
// underscores or dots. Caddy's server drops such fields unless it is configured to
// expect them, because CGI and PHP confuse them with names that contain dashes.
func ExpectedFields(module any) []string {
	return slices.DeleteFunc(requestFields(module), func(name string) bool { return !strings.ContainsAny(name, "_.") })
}

// CheckFields returns an error for the first field that a module reads but the server
// drops from all requests.
func CheckFields(ctx caddy.Context, module any) error {
	server, _ := ctx.Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server)
	if server == nil {
		return nil
	}
	for _, name := range requestFields(module) {
		if !strings.ContainsAny(name, "_.") {
			if other := expectedTwin(server, name); other != "" {
				return fmt.Errorf("field %q is dropped from requests because the server expects %q: use one of the two names", name, other)
			}
			continue
		}
		if meant := CGIAlias(name); meant != "" {
			return fmt.Errorf("field %q is dropped from requests because CGI and PHP read it as %s: use another name", name, meant)
		}
		if !serverExpects(server, name) {
			option := "expected_underscore_headers"
			if !strings.Contains(name, "_") {
				option = "expected_dot_headers"
			}
			return fmt.Errorf("field %q is dropped from requests because of its name: add `%s %s` to the global option `servers`, or use dashes in the name",
				name, option, name)
		}
	}
	return nil
}

// expectedTwin returns the field with underscores or dots that a server expects and
// that equals name with dashes.
func expectedTwin(server *caddyhttp.Server, name string) string {
	for _, expected := range slices.Concat(server.ExpectedUnderscoreHeaders, server.ExpectedDotHeaders) {
		if strings.EqualFold(dashes.Replace(expected), name) {
			return expected
		}
	}
	return ""
}
