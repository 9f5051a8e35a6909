package options

import (
	"encoding/json"
	"reflect"
	"time"

	"github.com/caddyserver/caddy/v2"
)

// Timeout is a time limit. The zero value means unset and selects the default. A limit
// set to 0 is stored as TimeoutOff and disables the limit.
type Timeout caddy.Duration

// TimeoutOff is the value of a time limit that is set to 0.
const TimeoutOff Timeout = -1

// TimeoutType is the reflect.Type of Timeout.
var TimeoutType = reflect.TypeFor[Timeout]()

// Or returns the limit, or preset if the limit is unset. The result 0 means no limit.
func (t Timeout) Or(preset time.Duration) time.Duration {
	if t == 0 {
		return preset
	}
	return max(time.Duration(t), 0)
}

// IsOff reports whether the limit is disabled.
func (t Timeout) IsOff() bool { return t < 0 }

// UnmarshalJSON parses a number of nanoseconds or a string such as 30s.
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

// MarshalJSON encodes the number of nanoseconds, 0 for a disabled limit.
func (t Timeout) MarshalJSON() ([]byte, error) {
	return json.Marshal(time.Duration(t.Written()))
}

// UnmarshalText parses a string such as 30s.
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

// Written returns the limit as configured: 0 for a disabled limit.
func (t Timeout) Written() caddy.Duration {
	if t == TimeoutOff {
		return 0
	}
	return caddy.Duration(t)
}
