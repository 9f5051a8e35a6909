package caddyfile

import (
	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/modules/logging"

	"github.com/rgate/rgate/policy"
)

// Credentials are not logged. Caddy redacts Authorization and cookies; a filter redacts
// the other fields and parameters that policies read, also in logs other than the access
// log.

// redacted replaces a secret in the log, with Caddy's word.
const redacted = "REDACTED"

// secretlessLog returns a default log that redacts secrets.
func secretlessLog(s policy.Secrets) *caddy.Logging {
	fields := make(map[string]any)
	for _, name := range s.Headers {
		fields["request>headers>"+name] = map[string]string{"filter": "replace", "value": redacted}
	}
	if len(s.Parameters) > 0 {
		var actions []map[string]string
		for _, name := range s.Parameters {
			actions = append(actions, map[string]string{"type": "replace", "parameter": name, "value": redacted})
		}
		fields["request>uri"] = map[string]any{"filter": "query", "actions": actions}
	}
	log := new(caddy.CustomLog)
	log.EncoderRaw = caddyconfig.JSON(map[string]any{"format": "filter", "fields": fields}, nil)
	return &caddy.Logging{Logs: map[string]*caddy.CustomLog{caddy.DefaultLoggerName: log}}
}

// secretless writes the same log as a global option.
func (p *printer) secretless(s policy.Secrets) {
	lines := []string{"log {", "\tformat filter {"}
	word := func(text string) string {
		quoted, err := quote(text)
		if err != nil {
			p.fails("access_log", "%v", err)
		}
		return quoted
	}
	for _, name := range s.Headers {
		lines = append(lines, "\t\t"+word("request>headers>"+name)+" replace "+redacted)
	}
	if len(s.Parameters) > 0 {
		lines = append(lines, "\t\trequest>uri query {")
		for _, name := range s.Parameters {
			lines = append(lines, "\t\t\treplace "+word(name)+" "+redacted)
		}
		lines = append(lines, "\t\t}")
	}
	p.global = append(p.global, append(lines, "\t}", "}")...)
}

// The filters must be in every binary that loads the configuration.
var (
	_ caddy.Module = logging.FilterEncoder{}
	_ caddy.Module = logging.ReplaceFilter{}
	_ caddy.Module = logging.QueryFilter{}
)
