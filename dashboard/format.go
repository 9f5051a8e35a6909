package dashboard

import (
	"math"
	"strconv"
	"strings"
	"time"
)

// null (NaN) is the value of a window without data.
var null = math.NaN()

func isNull(v float64) bool { return math.IsNaN(v) }

// quantity is the kind of a number. It selects the unit and the format.
type quantity int

const (
	rates         quantity = iota // requests per second
	byteRates                     // bytes per second
	byteCounts                    // bytes
	shares                        // ratios, 0 to 1
	durations                     // seconds
	requestCounts                 // numbers of requests
)

// unit is a divisor and a unit symbol.
type unit struct {
	size float64
	name string
}

// units lists the units of each quantity, smallest first.
var units = map[quantity][]unit{
	rates:         {{1, "/s"}, {1e3, "k/s"}, {1e6, "M/s"}},
	byteRates:     {{1, "B/s"}, {1e3, "KB/s"}, {1e6, "MB/s"}, {1e9, "GB/s"}, {1e12, "TB/s"}},
	byteCounts:    {{1, "B"}, {1e3, "KB"}, {1e6, "MB"}, {1e9, "GB"}, {1e12, "TB"}, {1e15, "PB"}},
	shares:        {{0.01, "%"}},
	durations:     {{1e-3, "ms"}, {1, "s"}, {60, "min"}},
	requestCounts: {{1, ""}, {1e6, "million"}, {1e9, "billion"}},
}

// unitFor returns the largest unit that does not exceed v.
func (q quantity) unitFor(v float64) unit {
	list := units[q]
	best := list[0]
	for _, u := range list {
		if v >= u.size*0.9995 { // use the next unit if v would be rounded to 1000
			best = u
		}
	}
	return best
}

// text formats a value with its unit and up to three significant digits.
func (q quantity) text(v float64) string {
	if isNull(v) {
		return "–"
	}
	u := q.unitFor(v)
	number := v / u.size
	var text string
	switch {
	case q == requestCounts && u.size == 1, q == byteCounts && u.size == 1:
		text = grouped(math.Round(number))
	case number != 0 && number < 0.01:
		text = "<0.01"
	default:
		text = digits(number)
	}
	return join(text, u.name)
}

// join appends a unit to a number, separated by a space except for units such as /s.
func join(number, unit string) string {
	if unit == "" || strings.HasSuffix(unit, "/s") && !strings.Contains(unit, "B") {
		return number + unit
	}
	return number + "\u00a0" + unit
}

// digits formats a nonnegative number with two decimals below 10, one below 100 and none
// above, without trailing zeros.
func digits(v float64) string {
	places := 2
	switch {
	case v >= 99.95:
		places = 0
	case v >= 9.995:
		places = 1
	}
	text := strconv.FormatFloat(v, 'f', places, 64)
	if strings.Contains(text, ".") {
		text = strings.TrimRight(strings.TrimRight(text, "0"), ".")
	}
	return text
}

// grouped formats an integer with commas as thousands separators.
func grouped(v float64) string {
	text := strconv.FormatFloat(v, 'f', 0, 64)
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}

// ago formats a duration as text such as "5 min ago", in the largest unit that fits.
func ago(d time.Duration) string {
	for _, u := range []struct {
		size time.Duration
		name string
	}{{24 * time.Hour, "d"}, {time.Hour, "h"}, {time.Minute, "min"}, {time.Second, "s"}} {
		if d >= u.size {
			return strconv.Itoa(int(d/u.size)) + "\u00a0" + u.name + " ago"
		}
	}
	return "just now"
}
