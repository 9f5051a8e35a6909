package dashboard

import "time"

// span is the time range of the page, divided into windows of equal length. The last
// window is incomplete.
type span struct {
	from time.Time // the start of the first window
	now  time.Time // within the last window
	step time.Duration
	n    int
	in   *time.Location // the page's time zone
}

// timeRange is a time range that users can select.
type timeRange struct {
	name   string // the value of the query parameter
	text   string
	length time.Duration
	step   time.Duration // the length of a window
	timing time.Duration // the length of a window for durations
	whole  time.Duration // the length of a window for the durations of routes
}

const day = 24 * time.Hour

// timeRanges lists the selectable ranges. Window lengths are steps that the store
// supports: divisors of an hour, or multiples of an hour or a day.
var timeRanges = []timeRange{
	{"5m", "5 minutes", 5 * time.Minute, time.Minute, time.Minute, time.Minute},
	{"1h", "1 hour", time.Hour, time.Minute, time.Minute, time.Minute},
	{"6h", "6 hours", 6 * time.Hour, 5 * time.Minute, 5 * time.Minute, time.Hour},
	{"24h", "24 hours", day, 15 * time.Minute, time.Hour, time.Hour},
	{"7d", "7 days", 7 * day, 2 * time.Hour, 2 * time.Hour, day},
	{"30d", "30 days", 30 * day, day, day, day},
}

// spanOf returns the span of a range that ends now, with windows of length step.
func spanOf(r timeRange, step time.Duration, now time.Time, in *time.Location) span {
	running := now.Truncate(step)
	n := int(r.length/step) + 1
	return span{from: running.Add(-r.length), now: now, step: step, n: n, in: in}
}

func (s span) start(i int) time.Time { return s.from.Add(time.Duration(i) * s.step) }

// end returns the end of the last window.
func (s span) end() time.Time { return s.start(s.n) }

// index returns the index of the window that contains t, or -1.
func (s span) index(t time.Time) int {
	if t.Before(s.from) || !t.Before(s.end()) {
		return -1
	}
	return int(t.Sub(s.from) / s.step)
}

// seconds returns the elapsed time of a window in seconds.
func (s span) seconds(i int) float64 {
	return min(s.step, s.now.Sub(s.start(i))).Seconds()
}

// judged reports whether enough of a window has elapsed to show a rate.
func (s span) judged(i int) bool { return s.seconds(i) >= min(s.step.Seconds()/10, 60) }

// nulls returns a row of windows without data.
func (s span) nulls() []float64 {
	row := make([]float64, s.n)
	for i := range row {
		row[i] = null
	}
	return row
}

// clock formats a time in the page's time zone, with a precision that fits the windows.
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

// mark is a label on the time axis of a picture.
type mark struct {
	At    float64 // the position, from 0 (left) to 1 (right)
	Text  string
	Minor bool // hidden on narrow screens
}

// marks returns at most eight marks, at the starts of windows that contain round times.
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
