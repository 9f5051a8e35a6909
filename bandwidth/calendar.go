package bandwidth

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
	_ "time/tzdata" // a container may have no time zones of its own
)

// calendar divides time into the periods of an allocation, without a gap between
// them. They begin and end at midnight in its time zone, however many hours the days
// between have.
type calendar struct {
	unit string // `day`, `week`, `month`
	days int    // if not 0, a period is that many days, counted from 1970-01-01, instead
	zone *time.Location
}

const maxPeriodDays = 366

var (
	errPeriod = errors.New("use day, week, month, or a number of days such as 30d, at most 366d")
	errZone   = errors.New("use UTC or a name such as Europe/Berlin")
)

// parseCalendar reads a period and a time zone. Its error is errPeriod or errZone.
func parseCalendar(period, zone string) (calendar, error) {
	location, err := time.LoadLocation(zone)
	if err != nil || zone == "" || zone == "Local" { // which is another on each gateway
		return calendar{}, errZone
	}
	switch period {
	case "day", "week", "month":
		return calendar{unit: period, zone: location}, nil
	}
	digits, ok := strings.CutSuffix(period, "d")
	days, err := strconv.Atoi(digits)
	if !ok || err != nil || days < 1 || days > maxPeriodDays || digits[0] == '+' {
		return calendar{}, errPeriod
	}
	return calendar{days: days, zone: location}, nil
}

// at returns the period that a time is in: it begins at start, and end is the first
// moment of the next one.
func (c calendar) at(t time.Time) (start, end time.Time) {
	day := dayOf(t.In(c.zone))
	for {
		first, next := c.around(day)
		start, end = midnight(first, c.zone), midnight(next, c.zone)
		switch {
		// Clocks that go back at midnight show the end of a day that is over.
		case t.Before(start):
			day = first - 1
		case !t.Before(end):
			day = next
		default:
			return start, end
		}
	}
}

// around returns the first days of the period that a day is in and of the next one.
// Days are counted from 1970-01-01, a Thursday.
func (c calendar) around(day int) (first, next int) {
	switch date := time.Unix(0, 0).UTC().AddDate(0, 0, day); {
	case c.days > 0:
		first = day - floorMod(day, c.days)
		return first, first + c.days
	case c.unit == "week":
		first = day - floorMod(day+3, 7)
		return first, first + 7
	case c.unit == "month":
		y, m, _ := date.Date()
		return dayOf(time.Date(y, m, 1, 0, 0, 0, 0, time.UTC)), dayOf(time.Date(y, m+1, 1, 0, 0, 0, 0, time.UTC))
	default:
		return day, day + 1
	}
}

func floorMod(a, b int) int { return ((a % b) + b) % b }

// dayOf is the number of the day that a clock shows.
func dayOf(t time.Time) int {
	y, m, d := t.Date()
	return int(time.Date(y, m, d, 0, 0, 0, 0, time.UTC).Unix() / 86400) // a whole number
}

// midnight returns the first moment at which the clocks of a time zone show a day, or
// if they skip it, a later one.
func midnight(day int, zone *time.Location) time.Time {
	shown := time.Unix(int64(day)*86400, 0).UTC()
	// The offsets in force well before and well after: one of them applies.
	_, before := shown.Add(-26 * time.Hour).In(zone).Zone()
	_, after := shown.Add(26 * time.Hour).In(zone).Zone()
	first := shown.Add(-time.Duration(max(before, after)) * time.Second).In(zone)
	second := shown.Add(-time.Duration(min(before, after)) * time.Second).In(zone)
	for _, t := range []time.Time{first, second} {
		if dayOf(t) == day && t.Hour() == 0 && t.Minute() == 0 {
			return t
		}
	}
	// Clocks go forward over midnight: the day begins when they do.
	start, _ := second.ZoneBounds()
	return start
}

// name says which period it is that begins at a time.
func (c calendar) name(start time.Time) string {
	// Where a day has no midnight, the period begins a little later on the same day.
	start = start.In(c.zone)
	switch {
	case c.days > 0:
		return fmt.Sprintf("%d days from %s", c.days, start.Format("2 January 2006"))
	case c.unit == "week":
		year, week := start.ISOWeek()
		return fmt.Sprintf("week %d of %d", week, year)
	case c.unit == "month":
		return start.Format("January 2006")
	default:
		return start.Format("2 January 2006")
	}
}
