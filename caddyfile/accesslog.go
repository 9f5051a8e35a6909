package caddyfile

import (
	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/modules/logging"

	"github.com/rgate/rgate/policy"
)

// Credentials are not logged. Caddy redacts Authorization and cookies. A log filter
// redacts the other header fields and query parameters that policies read as secrets,
// in all logs.

// redacted replaces secrets in logs. Caddy uses the same word.
const redacted = "REDACTED"

// secretlessLog returns a configuration of the default log that redacts secrets.
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

// secretless writes the log of secretlessLog as a global option.
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

// Import the modules that the adapted configuration uses.
var (
	_ caddy.Module = logging.FilterEncoder{}
	_ caddy.Module = logging.ReplaceFilter{}
	_ caddy.Module = logging.QueryFilter{}
)
