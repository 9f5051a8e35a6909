package bandwidth

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
	_ "time/tzdata" // container images may lack time zone data
)

// calendar divides time into consecutive periods. Periods start at midnight in its time
// zone, also if a day has 23 or 25 hours.
type calendar struct {
	unit string // `day`, `week`, `month`
	days int    // period length in days, counted from 1970-01-01; 0: use unit
	zone *time.Location
}

const maxPeriodDays = 366

var (
	errPeriod = errors.New("must be day, week, month or a number of days such as 30d, at most 366d")
	errZone   = errors.New("use UTC or a name such as Europe/Berlin")
)

// parseCalendar parses a period and a time zone. The error is errPeriod or errZone.
func parseCalendar(period, zone string) (calendar, error) {
	location, err := time.LoadLocation(zone)
	if err != nil || zone == "" || zone == "Local" { // Local differs between gateways
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

// at returns the period that contains t. end is the start of the next period.
func (c calendar) at(t time.Time) (start, end time.Time) {
	day := dayOf(t.In(c.zone))
	for {
		first, next := c.around(day)
		start, end = midnight(first, c.zone), midnight(next, c.zone)
		switch {
		// t may be before its date's first midnight if clocks go back at midnight.
		case t.Before(start):
			day = first - 1
		case !t.Before(end):
			day = next
		default:
			return start, end
		}
	}
}

// around returns the first day of the period that contains day, and of the next period.
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

// dayOf returns the number of days from 1970-01-01 to the date of t.
func dayOf(t time.Time) int {
	y, m, d := t.Date()
	return int(time.Date(y, m, d, 0, 0, 0, 0, time.UTC).Unix() / 86400) // exact: multiple of 86400
}

// midnight returns the first moment of a day in a time zone. If the day has no midnight,
// it returns a later moment.
func midnight(day int, zone *time.Location) time.Time {
	shown := time.Unix(int64(day)*86400, 0).UTC()
	// One of the UTC offsets well before and well after applies.
	_, before := shown.Add(-26 * time.Hour).In(zone).Zone()
	_, after := shown.Add(26 * time.Hour).In(zone).Zone()
	first := shown.Add(-time.Duration(max(before, after)) * time.Second).In(zone)
	second := shown.Add(-time.Duration(min(before, after)) * time.Second).In(zone)
	for _, t := range []time.Time{first, second} {
		if dayOf(t) == day && t.Hour() == 0 && t.Minute() == 0 {
			return t
		}
	}
	// Clocks go forward at midnight: the day starts at the transition.
	start, _ := second.ZoneBounds()
	return start
}

// name returns the display name of the period that starts at a time.
func (c calendar) name(start time.Time) string {
	// If a day has no midnight, the period starts later on the same day.
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
