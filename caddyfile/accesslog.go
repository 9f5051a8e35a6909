package caddyfile

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/modules/logging"
)

// What clients prove themselves with stays out of the log. Caddy sees to Authorization
// and to cookies; what else policies read is put out of sight by a filter, also where
// it is not the access log that shows a request.

// redacted is what the log has in the place of a secret, as Caddy's own words are.
const redacted = "REDACTED"

// secrets are where requests have what nobody shall read in a log.
type secrets struct{ headers, parameters []string }

// secretsOf finds what the policies of a gateway read, given in JSON.
func secretsOf(gateway []byte) secrets {
	s := secrets{headers: []string{"X-Api-Key"}}
	var tree any
	if json.Unmarshal(gateway, &tree) == nil { // it was encoded just now
		s.find(tree)
	}
	slices.Sort(s.headers)
	slices.Sort(s.parameters)
	s.headers, s.parameters = slices.Compact(s.headers), slices.Compact(s.parameters)
	return s
}

// find looks for policies, which may be handlers and providers of Caddy's handler
// `authentication`, wherever they are.
func (s *secrets) find(tree any) {
	switch value := tree.(type) {
	case []any:
		for _, element := range value {
			s.find(element)
		}
	case map[string]any:
		s.read(value["handler"], value)
		for name, element := range value {
			s.read(name, element)
			s.find(element)
		}
	}
}

// read takes what a policy is told to read. What is none, or is told nothing, says
// nothing.
func (s *secrets) read(name, policy any) {
	options, _ := policy.(map[string]any)
	switch name {
	case "rgate_api_key":
		s.add("header", options["header"])
		s.add("query", options["query"])
	case "rgate_jwt":
		places, _ := options["token_from"].([]any)
		for _, place := range places {
			text, _ := place.(string)
			kind, name, _ := strings.Cut(text, ":")
			s.add(kind, name)
		}
	}
}

func (s *secrets) add(kind string, value any) {
	name, _ := value.(string)
	switch {
	case name == "":
	case kind == "query":
		s.parameters = append(s.parameters, name)
	case kind == "header" && !strings.EqualFold(name, "Authorization"):
		s.headers = append(s.headers, http.CanonicalHeaderKey(name))
	}
}

// logging is a default log without secrets.
func (s *secrets) logging() *caddy.Logging {
	fields := make(map[string]any)
	for _, name := range s.headers {
		fields["request>headers>"+name] = map[string]string{"filter": "replace", "value": redacted}
	}
	if len(s.parameters) > 0 {
		var actions []map[string]string
		for _, name := range s.parameters {
			actions = append(actions, map[string]string{"type": "replace", "parameter": name, "value": redacted})
		}
		fields["request>uri"] = map[string]any{"filter": "query", "actions": actions}
	}
	log := new(caddy.CustomLog)
	log.EncoderRaw = caddyconfig.JSON(map[string]any{"format": "filter", "fields": fields}, nil)
	return &caddy.Logging{Logs: map[string]*caddy.CustomLog{caddy.DefaultLoggerName: log}}
}

// secretless writes the same as a global option.
func (p *printer) secretless(s secrets) {
	lines := []string{"log {", "\tformat filter {"}
	word := func(text string) string {
		quoted, err := quote(text)
		if err != nil {
			p.fails("access_log", "%v", err)
		}
		return quoted
	}
	for _, name := range s.headers {
		lines = append(lines, "\t\t"+word("request>headers>"+name)+" replace "+redacted)
	}
	if len(s.parameters) > 0 {
		lines = append(lines, "\t\trequest>uri query {")
		for _, name := range s.parameters {
			lines = append(lines, "\t\t\treplace "+word(name)+" "+redacted)
		}
		lines = append(lines, "\t\t}")
	}
	p.global = append(p.global, append(lines, "\t}", "}")...)
}

// The filters must be in every binary that reads the configuration.
var (
	_ caddy.Module = logging.FilterEncoder{}
	_ caddy.Module = logging.ReplaceFilter{}
	_ caddy.Module = logging.QueryFilter{}
)
