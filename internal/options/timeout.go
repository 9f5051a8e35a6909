package options

import (
	"encoding/json"
	"reflect"
	"time"

	"github.com/caddyserver/caddy/v2"
)

// Timeout is a time limit. Unset, it is zero and means the default; set to 0, it is
// TimeoutOff and disables the limit.
type Timeout caddy.Duration

// TimeoutOff is the value of a time limit that is set to 0.
const TimeoutOff Timeout = -1

// TimeoutType is the type of time limits.
var TimeoutType = reflect.TypeFor[Timeout]()

// Or returns the limit, or preset if it is unset. 0 means no limit.
func (t Timeout) Or(preset time.Duration) time.Duration {
	if t == 0 {
		return preset
	}
	return max(time.Duration(t), 0)
}

// IsOff reports whether the limit is disabled.
func (t Timeout) IsOff() bool { return t < 0 }

// UnmarshalJSON reads a number of nanoseconds or a text such as 30s.
func (t *Timeout) UnmarshalJSON(data []byte) error {
	if string(data) == "null" {
		return nil
	}
	var d caddy.Duration
	if err := json.Unmarshal(data, &d); err != nil {
		return err
	}
	t.set(time.Duration(d))
	return nil
}

// MarshalJSON writes the number of nanoseconds, 0 for a disabled limit.
func (t Timeout) MarshalJSON() ([]byte, error) {
	return json.Marshal(time.Duration(t.Written()))
}

// UnmarshalText reads a text such as 30s.
func (t *Timeout) UnmarshalText(text []byte) error {
	d, err := caddy.ParseDuration(string(text))
	if err != nil {
		return errDuration
	}
	t.set(d)
	return nil
}

func (t *Timeout) set(d time.Duration) {
	*t = Timeout(d)
	if d == 0 {
		*t = TimeoutOff
	}
}

// Written returns the limit as it is written in a configuration.
func (t Timeout) Written() caddy.Duration {
	if t == TimeoutOff {
		return 0
	}
	return caddy.Duration(t)
}
