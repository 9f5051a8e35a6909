package bandwidth

import (
	"testing"
	"time"
)

func mustCalendar(t testing.TB, period, zone string) calendar {
	t.Helper()
	c, err := parseCalendar(period, zone)
	if err != nil {
		t.Fatalf("%s in %s: %v", period, zone, err)
	}
	return c
}

func TestCalendarPeriods(t *testing.T) {
	const layout = "2006-01-02T15:04:05-07:00"
	for _, c := range []struct{ what, period, zone, at, start, end, name string }{
		{"a day", "day", "UTC", "2026-11-24T14:33:00+00:00", "2026-11-24T00:00:00+00:00", "2026-11-25T00:00:00+00:00", "24 November 2026"},
		{"its first moment", "day", "UTC", "2026-11-24T00:00:00+00:00", "2026-11-24T00:00:00+00:00", "2026-11-25T00:00:00+00:00", "24 November 2026"},
		{"another day there", "day", "Asia/Tokyo", "2026-11-24T16:00:00+00:00", "2026-11-25T00:00:00+09:00", "2026-11-26T00:00:00+09:00", "25 November 2026"},
		{"a day of 23 hours", "day", "Europe/Berlin", "2026-03-29T12:00:00+02:00", "2026-03-29T00:00:00+01:00", "2026-03-30T00:00:00+02:00", "29 March 2026"},
		{"a day of 25 hours", "day", "Europe/Berlin", "2026-10-25T12:00:00+01:00", "2026-10-25T00:00:00+02:00", "2026-10-26T00:00:00+01:00", "25 October 2026"},
		{"a month with a change", "month", "Europe/Berlin", "2026-10-25T12:00:00+01:00", "2026-10-01T00:00:00+02:00", "2026-11-01T00:00:00+01:00", "October 2026"},
		{"a month that is another in UTC", "month", "Europe/Berlin", "2026-10-31T23:30:00+00:00", "2026-11-01T00:00:00+01:00", "2026-12-01T00:00:00+01:00", "November 2026"},
		{"a year's last month", "month", "UTC", "2026-12-31T23:59:59+00:00", "2026-12-01T00:00:00+00:00", "2027-01-01T00:00:00+00:00", "December 2026"},
		{"a February", "month", "UTC", "2028-02-29T08:00:00+00:00", "2028-02-01T00:00:00+00:00", "2028-03-01T00:00:00+00:00", "February 2028"},
		{"a Sunday", "week", "UTC", "2026-11-29T23:59:59+00:00", "2026-11-23T00:00:00+00:00", "2026-11-30T00:00:00+00:00", "week 48 of 2026"},
		{"a Monday", "week", "UTC", "2026-11-30T00:00:00+00:00", "2026-11-30T00:00:00+00:00", "2026-12-07T00:00:00+00:00", "week 49 of 2026"},
		{"a week of two years", "week", "UTC", "2027-01-02T00:00:00+00:00", "2026-12-28T00:00:00+00:00", "2027-01-04T00:00:00+00:00", "week 53 of 2026"},
		{"before 1970", "week", "UTC", "1969-12-31T00:00:00+00:00", "1969-12-29T00:00:00+00:00", "1970-01-05T00:00:00+00:00", "week 1 of 1970"},
		{"thirty days", "30d", "UTC", "1970-01-30T23:00:00+00:00", "1970-01-01T00:00:00+00:00", "1970-01-31T00:00:00+00:00", "30 days from 1 January 1970"},
		{"thirty days lately", "30d", "Europe/Berlin", "2026-11-24T12:00:00+01:00", "2026-11-03T00:00:00+01:00", "2026-12-03T00:00:00+01:00", "30 days from 3 November 2026"},
		{"clocks that go forward at midnight", "day", "Africa/Cairo", "2026-04-24T12:00:00+03:00", "2026-04-24T01:00:00+03:00", "2026-04-25T00:00:00+03:00", "24 April 2026"},
		{"the day before", "day", "Africa/Cairo", "2026-04-23T23:59:59+02:00", "2026-04-23T00:00:00+02:00", "2026-04-24T01:00:00+03:00", "23 April 2026"},
		{"midnight twice", "day", "America/Havana", "2026-11-01T00:30:00-05:00", "2026-11-01T00:00:00-04:00", "2026-11-02T00:00:00-05:00", "1 November 2026"},
		{"clocks that go back over midnight", "day", "America/St_Johns", "2010-11-06T23:30:00-03:30", "2010-11-07T00:00:00-02:30", "2010-11-08T00:00:00-03:30", "7 November 2010"},
		{"a day that was skipped", "day", "Pacific/Apia", "2011-12-31T00:00:00+14:00", "2011-12-31T00:00:00+14:00", "2012-01-01T00:00:00+14:00", "31 December 2011"},
		{"the day before it", "day", "Pacific/Apia", "2011-12-29T23:59:59-10:00", "2011-12-29T00:00:00-10:00", "2011-12-31T00:00:00+14:00", "29 December 2011"},
	} {
		at, err := time.Parse(layout, c.at)
		if err != nil {
			t.Fatal(err)
		}
		calendar := mustCalendar(t, c.period, c.zone)
		start, end := calendar.at(at)
		if got := start.Format(layout); got != c.start {
			t.Errorf("%s: it begins at %s, want %s", c.what, got, c.start)
		}
		if got := end.Format(layout); got != c.end {
			t.Errorf("%s: it ends at %s, want %s", c.what, got, c.end)
		}
		if got := calendar.name(start); got != c.name {
			t.Errorf("%s: it is called %q, want %q", c.what, got, c.name)
		}
	}
}

// Every moment is in one period, and periods are consecutive.
func TestCalendarHasNoGaps(t *testing.T) {
	for _, zone := range []string{"UTC", "Europe/Berlin", "Africa/Cairo", "America/Havana", "America/St_Johns", "Pacific/Apia", "Asia/Kathmandu", "Australia/Lord_Howe", "America/Sao_Paulo", "Atlantic/Azores"} {
		for _, period := range []string{"day", "week", "month", "7d", "30d"} {
			c := mustCalendar(t, period, zone)
			at := time.Date(2009, 6, 1, 0, 0, 0, 0, time.UTC)
			_, next := c.at(at)
			for next.Year() < 2013 {
				start, end := c.at(next)
				if !start.Equal(next) || !end.After(start) {
					t.Fatalf("%s in %s: after one that ends at %v comes one from %v to %v", period, zone, next, start, end)
				}
				last := end.Add(-time.Nanosecond)
				if s, e := c.at(last); !s.Equal(start) || !e.Equal(end) {
					t.Fatalf("%s in %s: %v is in one from %v to %v, want %v to %v", period, zone, last, s, e, start, end)
				}
				if start.Unix()%900 != 0 {
					t.Fatalf("%s in %s: begins at %v", period, zone, start)
				}
				next = end
			}
		}
	}
}

func TestParseCalendar(t *testing.T) {
	for _, period := range []string{"", "year", "Month", "30", "d", "0d", "-1d", "367d", "1.5d", "+3d", "30d "} {
		if _, err := parseCalendar(period, "UTC"); err != errPeriod {
			t.Errorf("period %q: got %v", period, err)
		}
	}
	for _, zone := range []string{"", "Local", "Berlin", "Europe/Berln", "../etc/passwd"} {
		if _, err := parseCalendar("month", zone); err != errZone {
			t.Errorf("zone %q: got %v", zone, err)
		}
	}
}

func FuzzParseCalendar(f *testing.F) {
	for _, seed := range []string{"day", "week", "month", "30d", "366d", "0d", "-1d"} {
		f.Add(seed, "Europe/Berlin", int64(1_800_000_000))
	}
	f.Fuzz(func(t *testing.T, period, zone string, unix int64) {
		c, err := parseCalendar(period, zone)
		if err != nil {
			return
		}
		at := time.Unix(unix%(1<<33), 0)
		start, end := c.at(at)
		if at.Before(start) || !at.Before(end) {
			t.Fatalf("%s in %s: %v is not in %v to %v", period, zone, at, start, end)
		}
	})
}
