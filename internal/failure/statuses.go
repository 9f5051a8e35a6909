package failure

import (
	"strconv"
	"strings"

	"github.com/rgate/rgate/internal/options"
)

// ParseStatus parses a status from 200 to 599, or a class such as 5xx. For a class, it
// returns the first digit.
func ParseStatus(text string) (status int, ok bool) {
	if len(text) != 3 || text[0] < '2' || text[0] > '5' {
		return 0, false
	}
	if text[1:] == "xx" {
		return int(text[0] - '0'), true
	}
	status, err := strconv.Atoi(text)
	return status, err == nil
}

// Statuses is a set of statuses from 500 to 599.
type Statuses [100]bool

// Has reports whether a status is in the set.
func (s *Statuses) Has(status int) bool {
	return status >= 500 && status <= 599 && s[status-500]
}

// ParseStatuses parses the option statuses. 5xx expands to the statuses that inClass
// accepts, or to all of them if inClass is nil.
func ParseStatuses(list []string, inClass func(status int) bool) (set Statuses, err *options.Error) {
	for i, text := range list {
		at := "statuses[" + strconv.Itoa(i) + "]"
		status, notNumber := strconv.Atoi(text)
		switch {
		case strings.EqualFold(text, "5xx"):
			for i := range set {
				set[i] = set[i] || inClass == nil || inClass(500+i)
			}
		case strings.EqualFold(text, "4xx") || notNumber == nil && status >= 400 && status < 500:
			return set, options.Errorf(at, "invalid status %s: must be 500 to 599, because 4xx are client errors", text)
		case notNumber != nil || status < 500 || status > 599:
			return set, options.Errorf(at, "invalid status %q: must be 500 to 599, or the class 5xx", text)
		default:
			set[status-500] = true
		}
	}
	return set, nil
}
