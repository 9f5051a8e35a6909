package caddyfile

import (
	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/modules/logging"

	"github.com/rgate/rgate/policy"
)

// What clients prove themselves with stays out of the log. Caddy sees to Authorization
// and to cookies; what else policies read is put out of sight by a filter, also where
// it is not the access log that shows a request.

// redacted is what the log has in the place of a secret, as Caddy's own words are.
const redacted = "REDACTED"

// secretlessLog is a default log without secrets.
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

// secretless writes the same as a global option.
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

// The filters must be in every binary that reads the configuration.
var (
	_ caddy.Module = logging.FilterEncoder{}
	_ caddy.Module = logging.ReplaceFilter{}
	_ caddy.Module = logging.QueryFilter{}
)
