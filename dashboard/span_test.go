package dashboard

import (
	"testing"
	"time"
	_ "time/tzdata" // independent of the machine
)

func TestSpansAreWholeWindows(t *testing.T) {
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range timeRanges {
		// The longer ranges include the end of daylight saving time.
		for _, now := range []time.Time{demoNow, time.Date(2026, 10, 25, 3, 0, 0, 0, time.UTC), time.Date(2026, 1, 1, 0, 0, 0, 1, time.UTC)} {
			for _, in := range []*time.Location{time.UTC, berlin} {
				s := spanOf(r, r.step, now, in)
				if s.n < 5 || s.n > 121 {
					t.Errorf("%s: %d windows", r.name, s.n)
				}
				if s.index(now) != s.n-1 || s.index(s.from) != 0 || s.index(s.from.Add(-1)) != -1 || s.index(s.end()) != -1 {
					t.Errorf("%s at %s: the windows are %s to %s", r.name, now, s.from, s.end())
				}
				if covered := now.Sub(s.from); covered < r.length || covered >= r.length+r.step {
					t.Errorf("%s at %s: it covers %s", r.name, now, covered)
				}
				if s.seconds(0) != r.step.Seconds() || s.seconds(s.n-1) > r.step.Seconds() {
					t.Errorf("%s: windows of %g and %g seconds", r.name, s.seconds(0), s.seconds(s.n-1))
				}
				marks := s.marks()
				if len(marks) < 4 || len(marks) > 8 {
					t.Errorf("%s at %s in %s has %d marks: %v", r.name, now, in, len(marks), marks)
				}
				for i, m := range marks {
					if m.At < 0 || m.At >= 1 || i > 0 && m.At <= marks[i-1].At {
						t.Errorf("%s: marks at %v", r.name, marks)
					}
				}
			}
		}
	}
}

// A window without enough elapsed time has no rate.
func TestWindowThatHasJustBegunIsLeftOut(t *testing.T) {
	for after, want := range map[time.Duration]bool{0: false, 5 * time.Second: false, 6 * time.Second: true, 30 * time.Second: true} {
		s := spanOf(timeRanges[1], time.Minute, demoNow.Truncate(time.Minute).Add(after), time.UTC)
		rate := s.perSecond(constant(s, 60))
		if got := !isNull(rate[s.n-1]); got != want || rate[0] != 1 {
			t.Errorf("after %s: the last rate is %g", after, rate[s.n-1])
		} else if got && rate[s.n-1] != 60/after.Seconds() {
			t.Errorf("after %s: the last rate is %g", after, rate[s.n-1])
		}
	}
}

func constant(s span, v float64) []float64 {
	row := s.nulls()
	for i := range row {
		row[i] = v
	}
	return row
}
