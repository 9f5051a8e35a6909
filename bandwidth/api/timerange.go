package api

import "time"

// timeRange is a time range divided into windows of equal length.
type timeRange struct {
	from, to time.Time     // aligned to windows, UTC; to is exclusive
	step     time.Duration // the window length

	// The time of the request, if the last window is not over. It replaces the end of the
	// last window as the time stamp. Zero if all windows are over.
	now time.Time
}

const (
	oneMinute = time.Minute
	oneDay    = 24 * time.Hour
)

// windowOf returns the start of the window that contains t. Windows are aligned to the
// Unix epoch, so windows that divide a day start at midnight UTC.
func windowOf(t time.Time, step time.Duration) time.Time {
	seconds := int64(step / time.Second)
	at := t.Unix()
	at -= (at%seconds + seconds) % seconds
	return time.Unix(at, 0).UTC()
}

// lookBack returns the windows of the duration back before now, and the current window.
func lookBack(now time.Time, back, step time.Duration) timeRange {
	current := windowOf(now, step)
	return timeRange{windowOf(current.Add(-back), step), current.Add(step), step, now}
}

// between returns the windows that overlap a time range. The range ends at now at the
// latest.
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

// windows returns the number of windows.
func (s timeRange) windows() int { return int(s.to.Sub(s.from) / s.step) }

// isOver reports whether all windows are in the past.
func (s timeRange) isOver() bool { return s.now.IsZero() }

// index returns the index of the window that starts at a time, or -1 if it is outside of
// the range.
func (s timeRange) index(start time.Time) int {
	i := int(start.Sub(s.from) / s.step)
	if start.Before(s.from) || i >= s.windows() {
		return -1
	}
	return i
}

// The time stamp layouts: RFC 3339 with an explicit UTC offset.
const (
	stampWhole   = "2006-01-02T15:04:05+00:00"
	stampPartial = "2006-01-02T15:04:05.000000+00:00"
)

// stamp returns the time stamp of a window: its end, or now with microseconds if it is
// not over.
func (s timeRange) stamp(i int) string {
	if !s.isOver() && i == s.windows()-1 {
		return s.now.UTC().Format(stampPartial)
	}
	return s.from.Add(time.Duration(i+1) * s.step).Format(stampWhole)
}

// end returns the time stamp of the last window.
func (s timeRange) end() string { return s.stamp(s.windows() - 1) }

// start returns the time stamp of the start of the range.
func (s timeRange) start() string { return s.from.Format(stampWhole) }

// piece is a part of a time range with one window length.
type piece struct {
	from, to time.Time
	step     time.Duration
}

// pieces divides a range of whole minutes into as few windows as possible: days in the
// middle, hours around them, minutes at the ends.
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
