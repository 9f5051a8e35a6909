package options

import (
	"encoding/json"
	"testing"
)

func TestSizesInJSON(t *testing.T) {
	for text, want := range map[string]Size{`10`: 10, `"10MB"`: 10_000_000, `"1KiB"`: 1024} {
		var s Size
		if err := json.Unmarshal([]byte(text), &s); err != nil || s != want {
			t.Errorf("%s: got %d, %v, want %d", text, s, err, want)
		}
	}
	for text, want := range map[string]string{
		`"big"`: `invalid size "big": must be a size such as 512KB, 10MB or 1GiB`,
		`-1`:    `invalid size "-1": must be a size such as 512KB, 10MB or 1GiB`,
	} {
		if err := json.Unmarshal([]byte(text), new(Size)); err == nil || err.Error() != want {
			t.Errorf("%s: got %v, want %s", text, err, want)
		}
	}
}
