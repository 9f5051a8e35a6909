package options

import "fmt"

// Error is an error about an option of a policy.
type Error struct{ field, message string }

// Errorf makes an error about an option, by its path in JSON, such as `window` or
// `keys[1].sha256`. It says what is wrong, and what would be right.
func Errorf(field, format string, args ...any) *Error {
	return &Error{field, fmt.Sprintf(format, args...)}
}

func (e *Error) Error() string { return e.message }

// Field is the path of the option in JSON.
func (e *Error) Field() string { return e.field }
