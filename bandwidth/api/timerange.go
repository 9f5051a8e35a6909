package api

import "time"

// timeRange is the windows of equal length that a report has points for.
type timeRange struct {
	from, to time.Time     // whole windows, UTC; to is the end of the last one
	step     time.Duration // their length

	// When the report was asked for, if the last window is not over: its point is
	// stamped with this instead of with its end.
	now time.Time
}

const (
	oneMinute = time.Minute
	oneDay    = 24 * time.Hour
)

// windowOf returns the beginning of the window that a time is in. Windows are
// counted from the beginning of 1970, so that those that divide a day begin with it.
func windowOf(t time.Time, step time.Duration) time.Time {
	seconds := int64(step / time.Second)
	at := t.Unix()
	at -= (at%seconds + seconds) % seconds
	return time.Unix(at, 0).UTC()
}

// lookBack is the windows of the last while: those that are over, and the one
// under way.
func lookBack(now time.Time, back, step time.Duration) timeRange {
	current := windowOf(now, step)
	return timeRange{windowOf(current.Add(-back), step), current.Add(step), step, now}
}

// between is the windows that a span of time touches. What lies ahead of now is
// left out.
func between(from, to, now time.Time, step time.Duration) timeRange {
	if to.After(now) {
		to = now
	}
	end := windowOf(to, step)
	if end.Before(to) || !end.After(windowOf(from, step)) {
		end = end.Add(step)
	}
	s := timeRange{from: windowOf(from, step), to: end, step: step}
	if end.After(now) {
		s.now = now
	}
	return s
}

// windows is how many there are.
func (s timeRange) windows() int { return int(s.to.Sub(s.from) / s.step) }

// isOver reports whether all windows lie in the past.
func (s timeRange) isOver() bool { return s.now.IsZero() }

// index is the window that begins at a time, or -1 if that is not one of the span.
func (s timeRange) index(start time.Time) int {
	i := int(start.Sub(s.from) / s.step)
	if start.Before(s.from) || i >= s.windows() {
		return -1
	}
	return i
}

// The forms of time stamps: RFC 3339 with the offset of UTC written out.
const (
	stampWhole   = "2006-01-02T15:04:05+00:00"
	stampPartial = "2006-01-02T15:04:05.000000+00:00"
)

// stamp is the time of the point of a window: its end or, if it is not over, now,
// with microseconds.
func (s timeRange) stamp(i int) string {
	if !s.isOver() && i == s.windows()-1 {
		return s.now.UTC().Format(stampPartial)
	}
	return s.from.Add(time.Duration(i+1) * s.step).Format(stampWhole)
}

// end is the time up to which there is something to report.
func (s timeRange) end() string { return s.stamp(s.windows() - 1) }

// start is the time from which on there is something to report.
func (s timeRange) start() string { return s.from.Format(stampWhole) }

// piece is a part of a span that is read in windows of one length.
type piece struct {
	from, to time.Time
	step     time.Duration
}

// pieces cuts a span of whole minutes so that as few windows as possible cover it:
// days in the middle, hours around them, minutes at the ends.
func pieces(from, to time.Time) (all []piece) {
	add := func(from, to time.Time, step time.Duration) {
		if from.Before(to) {
			all = append(all, piece{from, to, step})
		}
	}
	ceil := func(t time.Time, step time.Duration) time.Time { return windowOf(t.Add(step-1), step) }
	hours, lastHours := ceil(from, time.Hour), windowOf(to, time.Hour)
	if !hours.Before(lastHours) {
		add(from, to, oneMinute)
		return all
	}
	add(from, hours, oneMinute)
	if days, lastDays := ceil(hours, oneDay), windowOf(lastHours, oneDay); days.Before(lastDays) {
		add(hours, days, time.Hour)
		add(days, lastDays, oneDay)
		add(lastDays, lastHours, time.Hour)
	} else {
		add(hours, lastHours, time.Hour)
	}
	add(lastHours, to, oneMinute)
	return all
}
