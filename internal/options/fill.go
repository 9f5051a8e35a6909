package options

import (
	"strings"

	"github.com/caddyserver/caddy/v2"
)

// ReplacePlaceholders returns the value of an option with its placeholders replaced, without line
// breaks at the end. The error does not quote the value, which may contain a secret.
func ReplacePlaceholders(option, text string) (string, error) {
	value, err := caddy.NewReplacer().ReplaceOrErr(text, true, true)
	if err != nil {
		return "", Errorf(option, "%s has an unknown or empty placeholder: set its value, or write \\{ for a literal brace", option)
	}
	return strings.TrimRight(value, "\r\n"), nil // files end in a line break
}
