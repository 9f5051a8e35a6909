package policy

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
)

// Secrets are where requests have what nobody shall read in a log: the names of header
// fields, without Authorization, which Caddy hides itself, and of parameters of the
// query. Both are sorted.
type Secrets struct{ Headers, Parameters []string }

// SecretsIn finds what the policies of a configuration in JSON read.
func SecretsIn(config []byte) Secrets {
	s := Secrets{Headers: []string{"X-Api-Key"}}
	var tree any
	if json.Unmarshal(config, &tree) == nil { // who loads it has more to say about that
		s.find(tree)
	}
	slices.Sort(s.Headers)
	slices.Sort(s.Parameters)
	s.Headers, s.Parameters = slices.Compact(s.Headers), slices.Compact(s.Parameters)
	return s
}

// find looks for policies, which may be handlers and providers of Caddy's handler
// `authentication`, wherever they are.
func (s *Secrets) find(tree any) {
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
func (s *Secrets) read(name, policy any) {
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

func (s *Secrets) add(kind string, value any) {
	name, _ := value.(string)
	switch {
	case name == "":
	case kind == "query":
		s.Parameters = append(s.Parameters, name)
	case kind == "header" && !strings.EqualFold(name, "Authorization"):
		s.Headers = append(s.Headers, http.CanonicalHeaderKey(name))
	}
}
