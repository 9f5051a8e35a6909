package options

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"

	"github.com/dustin/go-humanize"
)

// Size is a number of bytes with an optional unit, such as 64KiB or 10MB.
type Size int64

var errSize = errors.New("a size such as 512KB, 10MB or 1GiB")

// UnmarshalText parses a number of bytes with an optional unit. The error describes
// valid values.
func (s *Size) UnmarshalText(text []byte) error {
	n, err := humanize.ParseBytes(string(text))
	if err != nil || n > 1<<62 {
		return errSize
	}
	*s = Size(n)
	return nil
}

// UnmarshalJSON parses a number, or a string with an optional unit. The error wraps the
// error of UnmarshalText.
func (s *Size) UnmarshalJSON(data []byte) error {
	var text string
	if err := json.Unmarshal(data, &text); err != nil {
		text = string(data)
	}
	if err := s.UnmarshalText([]byte(text)); err != nil {
		return fmt.Errorf("invalid size %q: must be %w", text, err)
	}
	return nil
}

// MarshalJSON encodes the number of bytes.
func (s Size) MarshalJSON() ([]byte, error) { return strconv.AppendInt(nil, int64(s), 10), nil }
