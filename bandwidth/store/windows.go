package store

import "time"

// span is a part of a query's time range that is read from one table.
type span struct {
	unit     int64 // row length of the table in seconds
	from, to int64 // row start times: from is inclusive, to is exclusive
}

// watermarks are the times before which rows may have been deleted, aligned to the next
// coarser unit.
type watermarks struct {
	minutes, hours int64
	requestMinutes int64 // for minute rows of requests
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

// spansOf returns the spans to read for a time range aligned to unit. It uses rows of
// that unit where they are kept, and coarser rows before. A coarser row counts at its
// start.
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

// ceilTo rounds a time up to a multiple of unit.
func ceilTo(at, unit int64) int64 { return floorTo(at+unit-1, unit) }

// windows divides a query's time range into windows of equal length.
type windows struct{ from, to, step, offset int64 }

// monday is the first Monday of the Unix epoch: 1970-01-05.
const monday = 4 * day

// windowsOf aligns a query's time range to whole windows. Windows are aligned to the Unix
// epoch, and windows of whole weeks start on Mondays.
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

// startOf returns the start of the window that contains at.
func (w windows) startOf(at int64) int64 { return floorTo(at-w.offset, w.step) + w.offset }

// unit returns the coarsest row length that divides the windows.
func (w windows) unit() int64 {
	switch {
	case w.step%day == 0:
		return day
	case w.step%hour == 0:
		return hour
	}
	return minute
}
