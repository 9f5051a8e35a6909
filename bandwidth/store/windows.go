package store

import "time"

// span is a part of the time that a query asks for, and what it is read from.
type span struct {
	unit     int64 // of the table
	from, to int64 // the beginnings of rows, from included and to not
}

// watermarks are the times before which the rows of a unit may have been deleted. They
// are cut to whole units of the next one.
type watermarks struct {
	minutes, hours int64
	requestMinutes int64 // of the minutes of requests
}

func (w watermarks) of(unit int64) int64 {
	switch unit {
	case minute:
		return w.minutes
	case hour:
		return w.hours
	}
	return 0
}

// spansOf says what to read for windows whose edges are multiples of a unit: rows of
// that unit as far as they are kept, and before that those of the next coarser one,
// each of which stands at its beginning.
func spansOf(from, to, unit int64, w watermarks) (spans []span) {
	for from < to {
		kept := w.of(unit)
		if unit == day || kept <= from {
			return append([]span{{unit, from, to}}, spans...)
		}
		if kept < to {
			spans = append([]span{{unit, kept, to}}, spans...)
			to = kept
		}
		unit = coarserUnit(unit)
	}
	return spans
}

func coarserUnit(unit int64) int64 {
	if unit == minute {
		return hour
	}
	return day
}

// ceilTo cuts a time up to whole units.
func ceilTo(at, unit int64) int64 { return floorTo(at+unit-1, unit) }

// windows are the equal parts of the span of a query.
type windows struct{ from, to, step, offset int64 }

// monday is one, in 1970.
const monday = 4 * day

// windowsOf cuts the span of a query to whole windows. They begin at multiples of
// their length since 1970, those of whole weeks on Mondays.
func windowsOf(q Query) windows {
	step := max(int64(q.Step/time.Second), minute)
	step = ceilTo(step, minute)
	w := windows{step: step}
	if step%(7*day) == 0 {
		w.offset = monday
	}
	w.from = w.startOf(q.From.Unix())
	w.to = w.startOf(q.To.Unix())
	if q.To.After(time.Unix(w.to, 0)) {
		w.to += step
	}
	return w
}

// startOf is the beginning of the window that a time is in.
func (w windows) startOf(at int64) int64 { return floorTo(at-w.offset, w.step) + w.offset }

// unit is that of the coarsest rows that fit into the windows.
func (w windows) unit() int64 {
	switch {
	case w.step%day == 0:
		return day
	case w.step%hour == 0:
		return hour
	}
	return minute
}
