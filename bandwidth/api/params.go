package api

import (
	"fmt"
	"math"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/rgate/rgate/bandwidth/store"
	"github.com/rgate/rgate/internal/options"
)

// usageParams holds the query parameters of a usage report.
type usageParams struct {
	timeRange
	store.Filter
	types   []store.Direction
	groupBy []store.Dimension
	headers bool // include estimated header bytes
	csv     bool
}

// paramError is an error in a query parameter.
type paramError struct {
	Parameter string
	message   string
}

func (e *paramError) Error() string { return e.message }

func paramf(parameter, format string, args ...any) *paramError {
	return &paramError{parameter, fmt.Sprintf(format, args...)}
}

const (
	// maxWindows is the maximum number of windows in a report.
	maxWindows = 11_000

	// maxPoints is the maximum number of points in a report, over all groups.
	maxPoints = 100_000

	// maxNames is the maximum number of values of one parameter.
	maxNames = 100

	defaultLookback = "5m"
)

// The query parameters.
var (
	spanParams   = []string{"lookback_duration", "from", "to"}
	filterParams = []string{"service", "route", "consumer", "gateway"}
	shapeParams  = []string{"type", "group_by", "headers", "format"}

	seriesParams = slices.Concat(spanParams, []string{"step"}, filterParams, shapeParams)
	totalParams  = slices.Concat(spanParams, filterParams, shapeParams)
)

// parseUsage parses a query string. known lists the parameters that the endpoint accepts.
func parseUsage(values url.Values, known []string, now time.Time) (q usageParams, _ error) {
	if err := checkNames(values, known); err != nil {
		return q, err
	}
	if err := q.parseSpan(values, now); err != nil {
		return q, err
	}
	if err := q.parseShape(values); err != nil {
		return q, err
	}
	q.Services, q.Routes = namesIn(values["service"]), namesIn(values["route"])
	q.Consumers, q.Gateways = namesIn(values["consumer"]), namesIn(values["gateway"])
	if slices.Contains(known, "step") { // only series have windows
		if err := q.checkWindows(values); err != nil {
			return q, err
		}
	}
	return q, nil
}

// checkNames rejects unknown parameters, repeated parameters that are not lists, and lists
// with more than maxNames values.
func checkNames(values url.Values, known []string) error {
	for name, given := range values {
		switch {
		case len(known) == 0:
			return paramf(name, "unknown parameter %q: remove it, because this endpoint has no parameters", name)
		case !slices.Contains(known, name):
			return paramf(name, "unknown parameter %q%s: use %s", name, options.Suggest(name, known), strings.Join(known, ", "))
		case len(given) > 1 && !slices.Contains(filterParams, name) && name != "group_by":
			return paramf(name, "%s is set %d times: set it once", name, len(given))
		case len(given) > maxNames:
			return paramf(name, "%s is set %d times: the maximum is %d: use several requests", name, len(given), maxNames)
		}
	}
	return nil
}

var lookbackForm = regexp.MustCompile(`^[0-9]+m$`)

// parseSpan parses the time range: lookback_duration, or from and to.
func (q *usageParams) parseSpan(values url.Values, now time.Time) *paramError {
	step, err := parseStep(values.Get("step"))
	if err != nil {
		return err
	}
	from, to, lookback := values.Get("from"), values.Get("to"), values.Get("lookback_duration")
	if from == "" && to == "" {
		if !values.Has("lookback_duration") {
			lookback = defaultLookback
		}
		if !lookbackForm.MatchString(lookback) {
			return paramf("lookback_duration", "invalid lookback_duration %q: must be in minutes, such as 5m: use from and to for a fixed time range", lookback)
		}
		minutes, err := strconv.ParseInt(strings.TrimSuffix(lookback, "m"), 10, 64)
		if err != nil || minutes > now.Unix()/60 {
			return paramf("lookback_duration", "invalid lookback_duration %s: must not begin before 1970", lookback)
		}
		q.timeRange = lookBack(now, time.Duration(minutes)*oneMinute, step)
		return nil
	}
	if lookback != "" {
		return paramf("lookback_duration", "lookback_duration cannot be combined with from or to: remove lookback_duration, or remove from and to")
	}
	if from == "" {
		return paramf("from", "to requires from: set from or remove to")
	}
	begin, err := parseTime("from", from)
	if err != nil {
		return err
	}
	end := now
	if to != "" {
		if end, err = parseTime("to", to); err != nil {
			return err
		}
	}
	switch {
	case !begin.Before(end):
		return paramf("from", "invalid from %s: must be before to and in the past", from)
	case !begin.Before(now):
		return paramf("from", "invalid from %s: must be in the past", from)
	}
	q.timeRange = between(begin, end, now, step)
	return nil
}

// checkWindows rejects time ranges with more than maxWindows windows.
func (q *usageParams) checkWindows(values url.Values) *paramError {
	parameter := "step"
	if values.Has("lookback_duration") {
		parameter = "lookback_duration"
	}
	if n := q.windows(); n > maxWindows {
		least := time.Duration(n/maxWindows+1) * q.step
		for _, step := range []time.Duration{5 * oneMinute, 15 * oneMinute, time.Hour, 6 * time.Hour, oneDay} {
			if step >= least {
				return paramf(parameter, "too many windows, %d: the maximum is %d: use step=%s, or a shorter range", n, maxWindows, stepText(step))
			}
		}
		return paramf(parameter, "too many windows, %d: the maximum is %d: use a shorter range", n, maxWindows)
	}
	return nil
}

var stepForm = regexp.MustCompile(`^([0-9]{1,7})([mhd])$`)

// parseStep parses the window length.
func parseStep(text string) (time.Duration, *paramError) {
	if text == "" {
		return oneMinute, nil
	}
	wrong := paramf("step", "invalid step %q: must be minutes or hours that divide a day, such as 1m, 15m or 1h, or 1d", text)
	m := stepForm.FindStringSubmatch(text)
	if m == nil {
		return 0, wrong
	}
	n, _ := strconv.Atoi(m[1]) // cannot fail: at most seven digits
	step := time.Duration(n) * map[string]time.Duration{"m": oneMinute, "h": time.Hour, "d": oneDay}[m[2]]
	if step <= 0 || oneDay%step != 0 {
		return 0, wrong
	}
	return step, nil
}

func stepText(step time.Duration) string {
	switch {
	case step%oneDay == 0:
		return fmt.Sprintf("%dd", step/oneDay)
	case step%time.Hour == 0:
		return fmt.Sprintf("%dh", step/time.Hour)
	}
	return fmt.Sprintf("%dm", step/oneMinute)
}

// lastTime is the exclusive upper bound of times in Unix seconds: 9999-12-31T00:00:00Z.
const lastTime = 253402214400

// parseTime parses an RFC 3339 time or Unix seconds.
func parseTime(parameter, text string) (time.Time, *paramError) {
	if seconds, err := strconv.ParseFloat(text, 64); err == nil && seconds >= 0 && seconds < lastTime {
		whole, fraction := math.Modf(seconds)
		return time.Unix(int64(whole), int64(fraction*1e9)).UTC(), nil
	}
	// An unescaped plus sign is decoded as a space.
	t, err := time.Parse(time.RFC3339Nano, strings.Replace(text, " ", "+", 1))
	if err != nil || t.Unix() < 0 || t.Unix() >= lastTime {
		return t, paramf(parameter, "invalid time %q: must be in RFC 3339, such as 2026-01-31T08:00:00Z, or seconds since 1970", text)
	}
	return t.UTC(), nil
}

// namesIn returns the values without empty strings and duplicates.
func namesIn(values []string) (names []string) {
	for _, value := range values {
		if value != "" && !slices.Contains(names, value) {
			names = append(names, value)
		}
	}
	return names
}

var directions = []store.Direction{store.Egress, store.Ingress}

// dimensions lists the values of group_by in the order of a point's fields.
var dimensions = []store.Dimension{store.ByService, store.ByRoute, store.ByConsumer, store.ByGateway}

// parseShape parses the parameters that control the response format: type, group_by,
// headers and format.
func (q *usageParams) parseShape(values url.Values) *paramError {
	q.types = directions
	if text, given := values["type"]; given {
		if text[0] != string(store.Egress) && text[0] != string(store.Ingress) {
			return paramf("type", "unknown type %q: use egress or ingress, or remove type for both", text[0])
		}
		q.types = []store.Direction{store.Direction(text[0])}
	}
	for _, text := range values["group_by"] {
		for name := range strings.SplitSeq(text, ",") {
			by := store.Dimension(strings.TrimSpace(name))
			if !slices.Contains(dimensions, by) {
				return paramf("group_by", "unknown group_by %q: use service, route, consumer, gateway or a comma-separated list of them", name)
			}
			if !slices.Contains(q.groupBy, by) {
				q.groupBy = append(q.groupBy, by)
			}
		}
	}
	switch text := values.Get("headers"); text {
	case "", "false":
	case "true":
		q.headers = true
	default:
		return paramf("headers", "invalid headers %q: must be true or false", text)
	}
	switch text := values.Get("format"); text {
	case "", "json":
	case "csv":
		q.csv = true
	default:
		return paramf("format", "unknown format %q: use json or csv", text)
	}
	return nil
}
