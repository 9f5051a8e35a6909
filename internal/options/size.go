package options

import (
	"encoding/json"
	"errors"
	"strconv"

	"github.com/dustin/go-humanize"
)

// Size is a number of bytes, with an optional unit: 64KiB, 10MB.
type Size int64

// UnmarshalText reads a number of bytes with or without a unit. Its error describes valid
// texts.
func (s *Size) UnmarshalText(text []byte) error {
	n, err := humanize.ParseBytes(string(text))
	if err != nil || n > 1<<62 {
		return errors.New("a size such as 512KB, 10MB or 1GiB")
	}
	*s = Size(n)
	return nil
}

// UnmarshalJSON reads a number, or text with a unit.
func (s *Size) UnmarshalJSON(data []byte) error {
	var text string
	if err := json.Unmarshal(data, &text); err != nil {
		text = string(data)
	}
	return s.UnmarshalText([]byte(text))
}

// MarshalJSON writes the number of bytes.
func (s Size) MarshalJSON() ([]byte, error) { return strconv.AppendInt(nil, int64(s), 10), nil }
