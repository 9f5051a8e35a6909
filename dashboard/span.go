package dashboard

import "time"

// A span is what the page looks at: windows of equal length, of which the last one
// has not ended yet.
type span struct {
	from time.Time // the beginning of the first window
	now  time.Time // in the last one
	step time.Duration
	n    int
	in   *time.Location // whose clock the page shows
}

// A reach is how far back the page looks.
type reach struct {
	name   string // in the address
	text   string
	length time.Duration
	step   time.Duration // of the windows
	timing time.Duration // of those in which it says how long requests took
	whole  time.Duration // of those that the times of a route are about
}

const day = 24 * time.Hour

// reaches are those there are. The length of a window divides an hour, or consists of
// whole ones or of whole days, so that the store has it.
var reaches = []reach{
	{"5m", "5 minutes", 5 * time.Minute, time.Minute, time.Minute, time.Minute},
	{"1h", "1 hour", time.Hour, time.Minute, time.Minute, time.Minute},
	{"6h", "6 hours", 6 * time.Hour, 5 * time.Minute, 5 * time.Minute, time.Hour},
	{"24h", "24 hours", day, 15 * time.Minute, time.Hour, time.Hour},
	{"7d", "7 days", 7 * day, 2 * time.Hour, 2 * time.Hour, day},
	{"30d", "30 days", 30 * day, day, day, day},
}

// spanOf is what a reach means now, in windows of a length: the whole ones, and the
// one that runs.
func spanOf(r reach, step time.Duration, now time.Time, in *time.Location) span {
	running := now.Truncate(step)
	n := int(r.length/step) + 1
	return span{from: running.Add(-r.length), now: now, step: step, n: n, in: in}
}

func (s span) start(i int) time.Time { return s.from.Add(time.Duration(i) * s.step) }

// end is when the last window will have ended.
func (s span) end() time.Time { return s.start(s.n) }

// index is the window that a time is in, -1 if it is in none.
func (s span) index(t time.Time) int {
	if t.Before(s.from) || !t.Before(s.end()) {
		return -1
	}
	return int(t.Sub(s.from) / s.step)
}

// seconds is how long a window is, as far as it is over.
func (s span) seconds(i int) float64 {
	return min(s.step, s.now.Sub(s.start(i))).Seconds()
}

// judged reports whether enough of a window is over to speak of rates.
func (s span) judged(i int) bool { return s.seconds(i) >= min(s.step.Seconds()/10, 60) }

// nulls makes a row of windows that nothing is known of.
func (s span) nulls() []float64 {
	row := make([]float64, s.n)
	for i := range row {
		row[i] = null
	}
	return row
}

// clock writes a time as precisely as the windows are.
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

// marks are at the beginnings of windows, at round times, and at most seven.
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
