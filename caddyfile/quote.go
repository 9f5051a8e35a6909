package caddyfile

import (
	"fmt"
	"regexp"
	"strings"
	"unicode"

	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
)

var (
	placeholder = regexp.MustCompile(`^\{[\w.-]+\}$`)
	shorthands  = httpcaddyfile.NewShorthandReplacer()
)

// quote returns text as one Caddyfile token. It returns an error if no token parses to
// this text.
func quote(text string) (string, error) {
	segment := caddyfile.Segment{{Text: text}}
	if shorthands.ApplyToSegment(&segment); segment[0].Text != text {
		return "", fmt.Errorf("a Caddyfile would expand the placeholders in %q to %q: use the expanded form here", text, segment[0].Text)
	}
	switch {
	case strings.Contains(text, "{$"):
		return "", fmt.Errorf("a Caddyfile would replace the {$ in %q by an environment variable: write {env.NAME}", text)
	case placeholder.MatchString(text), isBare(text):
		return text, nil
	case fitsDoubleQuotes(text) && !strings.Contains(text, `"`):
		return `"` + text + `"`, nil
	case !strings.Contains(text, "`"):
		return "`" + text + "`", nil
	case fitsDoubleQuotes(text):
		return `"` + strings.ReplaceAll(text, `"`, `\"`) + `"`, nil
	case !strings.Contains(text, "\r"):
		return heredoc(text), nil
	}
	return "", fmt.Errorf("%q cannot be quoted in a Caddyfile: remove the backticks or the carriage returns", text)
}

// isBare reports whether text needs no quotes.
func isBare(text string) bool {
	return text != "" && !strings.ContainsAny(text, "\"`\\{}#<") && !strings.ContainsFunc(text, func(c rune) bool {
		return unicode.IsSpace(c) || unicode.IsControl(c)
	})
}

// fitsDoubleQuotes reports whether text can be written in double quotes, where a
// backslash only escapes a quote.
func fitsDoubleQuotes(text string) bool {
	backslashes := 0
	for _, c := range text + `"` {
		if c == '"' && backslashes%2 == 1 {
			return false
		}
		if c == '\\' {
			backslashes++
		} else {
			backslashes = 0
		}
	}
	return true
}

// heredoc returns text as a heredoc with a marker that it does not contain.
func heredoc(text string) string {
	mark := "END"
	for strings.Contains(text+"\n", mark) {
		mark += "_"
	}
	return "<<" + mark + "\n" + text + "\n" + mark
}
