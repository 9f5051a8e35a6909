package dashboard

import "time"

// span is the time that the page shows: windows of equal length, of which the last one
// has not ended yet.
type span struct {
	from time.Time // start of the first window
	now  time.Time // in the last one
	step time.Duration
	n    int
	in   *time.Location // the page's time zone
}

// timeRange is a selectable time range.
type timeRange struct {
	name   string // in the query
	text   string
	length time.Duration
	step   time.Duration // length of the windows
	timing time.Duration // length of the windows of durations
	whole  time.Duration // length of the windows of routes' durations
}

const day = 24 * time.Hour

// timeRanges are the selectable ranges. The length of a window divides an hour, or is a
// multiple of an hour or a day, so that the store has it.
var timeRanges = []timeRange{
	{"5m", "5 minutes", 5 * time.Minute, time.Minute, time.Minute, time.Minute},
	{"1h", "1 hour", time.Hour, time.Minute, time.Minute, time.Minute},
	{"6h", "6 hours", 6 * time.Hour, 5 * time.Minute, 5 * time.Minute, time.Hour},
	{"24h", "24 hours", day, 15 * time.Minute, time.Hour, time.Hour},
	{"7d", "7 days", 7 * day, 2 * time.Hour, 2 * time.Hour, day},
	{"30d", "30 days", 30 * day, day, day, day},
}

// spanOf returns the span of a range that ends now, in windows of a length.
func spanOf(r timeRange, step time.Duration, now time.Time, in *time.Location) span {
	running := now.Truncate(step)
	n := int(r.length/step) + 1
	return span{from: running.Add(-r.length), now: now, step: step, n: n, in: in}
}

func (s span) start(i int) time.Time { return s.from.Add(time.Duration(i) * s.step) }

// end returns the end of the last window.
func (s span) end() time.Time { return s.start(s.n) }

// index returns the index of the window that contains a time, or -1.
func (s span) index(t time.Time) int {
	if t.Before(s.from) || !t.Before(s.end()) {
		return -1
	}
	return int(t.Sub(s.from) / s.step)
}

// seconds returns the length of a window until now.
func (s span) seconds(i int) float64 {
	return min(s.step, s.now.Sub(s.start(i))).Seconds()
}

// judged reports whether enough of a window has passed to show rates.
func (s span) judged(i int) bool { return s.seconds(i) >= min(s.step.Seconds()/10, 60) }

// nulls returns a row of windows without data.
func (s span) nulls() []float64 {
	row := make([]float64, s.n)
	for i := range row {
		row[i] = null
	}
	return row
}

// clock formats a time with the precision of the windows.
func (s span) clock(t time.Time) string {
	t = t.In(s.in)
	switch {
	case s.step >= day && t.Hour()+t.Minute() == 0:
		return t.Format("Mon 2 Jan")
	case s.step >= time.Hour:
		return t.Format("Mon 2 Jan 15:04")
	}
	return t.Format("15:04")
}

// mark is a label below a picture.
type mark struct {
	At    float64 // 0 to 1
	Text  string
	Minor bool // may be left out where there is little room
}

// marks returns at most seven marks, at the beginnings of windows and at round times.
func (s span) marks() (marks []mark) {
	every, layout := s.markEvery()
	for i := range s.n {
		t := s.start(i).In(s.in)
		midnight := time.Date(t.Year(), t.Month(), t.Day(), 0, 0, 0, 0, s.in)
		var due bool
		if days := int(every / day); days > 0 {
			due = t.Sub(midnight) < s.step && t.YearDay()%days == 0
		} else {
			due = t.Sub(midnight)%every < s.step
		}
		if due {
			marks = append(marks, mark{At: float64(i) / float64(s.n), Text: t.Format(layout), Minor: len(marks)%2 == 1})
		}
	}
	return marks
}

func (s span) markEvery() (time.Duration, string) {
	switch total := s.step * time.Duration(s.n-1); {
	case total <= 5*time.Minute:
		return time.Minute, "15:04"
	case total <= time.Hour:
		return 10 * time.Minute, "15:04"
	case total <= 6*time.Hour:
		return time.Hour, "15:04"
	case total <= day:
		return 4 * time.Hour, "15:04"
	case total <= 7*day:
		return day, "Mon 2"
	}
	return 5 * day, "2 Jan"
}
