// Package storetest provides helpers for tests of the usage store: empty databases of
// both engines, and a clock and a recorder that tests control.
package storetest

import (
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/rgate/rgate/stats"
)

// OnBothEngines runs a test with an empty SQLite database and with an empty PostgreSQL
// schema.
func OnBothEngines(t *testing.T, test func(t *testing.T, url string)) {
	t.Run("sqlite", func(t *testing.T) { test(t, SQLite(t)) })
	t.Run("postgres", func(t *testing.T) { test(t, Postgres(t)) })
}

// SQLite returns the URL of a database file that does not exist yet.
func SQLite(t testing.TB) string {
	return "sqlite://" + filepath.Join(t.TempDir(), "bandwidth.db")
}

// Clock is a manual clock. It is safe for concurrent use.
type Clock struct {
	mu  sync.Mutex
	now time.Time
}

// NewClock returns a clock set to now.
func NewClock(now time.Time) *Clock { return &Clock{now: now} }

// ClockAt returns a clock set to an RFC 3339 time.
func ClockAt(t testing.TB, text string) *Clock {
	t.Helper()
	return NewClock(Time(t, text))
}

// Time parses an RFC 3339 time.
func Time(t testing.TB, text string) time.Time {
	t.Helper()
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		t.Fatal(err)
	}
	return at
}

// Now returns the clock's time.
func (c *Clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

// Set sets the clock.
func (c *Clock) Set(now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = now
}

// Advance moves the clock by d.
func (c *Clock) Advance(d time.Duration) { c.Set(c.Now().Add(d)) }

// Recorder is a fake [stats.Recorder]: tests add the intervals that it drains.
type Recorder struct {
	mu        sync.Mutex
	intervals []stats.Interval
}

// Add adds intervals for the next Drain.
func (r *Recorder) Add(intervals ...stats.Interval) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.intervals = append(r.intervals, intervals...)
}

// Drain calls f with each interval that was added since the last call.
func (r *Recorder) Drain(f func(stats.Interval)) {
	r.mu.Lock()
	all := r.intervals
	r.intervals = nil
	r.mu.Unlock()
	for _, one := range all {
		f(one)
	}
}
