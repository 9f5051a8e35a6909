package policy

import "fmt"

// OptionError is an error about an option of a policy.
type OptionError struct{ field, message string }

// Optionf makes an error about an option, by its path in JSON, such as `window` or
// `keys[1].sha256`. It says what is wrong, and what would be right.
func Optionf(field, format string, args ...any) *OptionError {
	return &OptionError{field, fmt.Sprintf(format, args...)}
}

func (e *OptionError) Error() string { return e.message }

// Field is the path of the option in JSON.
func (e *OptionError) Field() string { return e.field }
