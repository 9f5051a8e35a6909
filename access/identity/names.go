package identity

import (
	"strings"
	"unicode"

	"github.com/rgate/rgate/internal/options"
)

// CheckScopes returns an error for the first invalid scope in an option.
func CheckScopes(option string, scopes []string) *options.Error {
	return checkNames(option, scopes, IsScope, "of one or more printable ASCII characters, without spaces, quotes or backslashes")
}

// CheckNames returns an error for the first invalid role or user in an option.
func CheckNames(option string, names []string) *options.Error {
	return checkNames(option, names, IsPrintable, "of one or more printable characters, without surrounding spaces")
}

func checkNames(option string, names []string, valid func(string) bool, want string) *options.Error {
	for _, name := range names {
		if !valid(name) {
			return options.Errorf(option, "invalid value %q of %s: must be a string %s", name, option, want)
		}
	}
	return nil
}

// IsScope reports whether a string is a scope token (RFC 6749, section 3.3).
func IsScope(text string) bool {
	return text != "" && !strings.ContainsFunc(text, func(c rune) bool {
		return c <= ' ' || c > '~' || c == '"' || c == '\\'
	})
}

// IsPrintable reports whether a string is not empty and has no control characters and no
// surrounding spaces.
func IsPrintable(text string) bool {
	return text != "" && strings.TrimSpace(text) == text && !strings.ContainsFunc(text, unicode.IsControl)
}

// IsHeaderText reports whether a string can be sent as a header field value without
// alteration: it has no control characters and no surrounding spaces.
func IsHeaderText(text string) bool {
	for i := range len(text) {
		if c := text[i]; c < ' ' || c == 0x7f {
			return false
		}
	}
	return text == strings.TrimSpace(text)
}
