// Package monotime measures the time since the start of the process. A time.Duration is
// smaller than a time.Time and cheaper to obtain.
package monotime

import "time"

var start = time.Now()

// Now returns the time since the start of the process. It never decreases.
func Now() time.Duration { return time.Since(start) }
