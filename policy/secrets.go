package policy

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
)

// Secrets lists the parts of requests that must not be logged. Both lists are sorted.
type Secrets struct {
	Headers    []string // without Authorization, which Caddy redacts
	Parameters []string // query parameters
}

// secretOption is an option that contains names of secret parts of requests.
type secretOption struct {
	option string
	in     string // header or query; empty for a list of strings such as query:NAME
}

// SecretsIn returns the secrets that the policies in a JSON configuration read.
func SecretsIn(config []byte) Secrets {
	s := Secrets{Headers: []string{"X-Api-Key"}}
	var tree any
	if json.Unmarshal(config, &tree) == nil { // loading the configuration reports the error
		s.find(tree)
	}
	slices.Sort(s.Headers)
	slices.Sort(s.Parameters)
	s.Headers, s.Parameters = slices.Compact(s.Headers), slices.Compact(s.Parameters)
	return s
}

// find collects the secrets of policies, which are handlers or providers of Caddy's
// `authentication` handler.
func (s *Secrets) find(tree any) {
	switch value := tree.(type) {
	case []any:
		for _, element := range value {
			s.find(element)
		}
	case map[string]any:
		if handler, ok := value["handler"].(string); ok {
			s.read(handler, value)
		}
		for name, element := range value {
			s.read(name, element)
			s.find(element)
		}
	}
}

// read adds the names of the secret header fields and parameters in the options of a
// policy. Invalid options are ignored.
func (s *Secrets) read(handler string, policy any) {
	options, _ := policy.(map[string]any)
	for _, secret := range kindOf(handler).secrets {
		if secret.in != "" {
			s.add(secret.in, options[secret.option])
			continue
		}
		sources, _ := options[secret.option].([]any)
		for _, source := range sources {
			text, _ := source.(string)
			in, name, _ := strings.Cut(text, ":")
			s.add(in, name)
		}
	}
}

func (s *Secrets) add(in string, value any) {
	name, _ := value.(string)
	switch {
	case name == "":
	case in == "query":
		s.Parameters = append(s.Parameters, name)
	case in == "header" && !strings.EqualFold(name, "Authorization"):
		s.Headers = append(s.Headers, http.CanonicalHeaderKey(name))
	}
}
