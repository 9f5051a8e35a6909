package identity

import (
	"bytes"
	"encoding/json"
	"errors"
	"slices"
	"strconv"
)

// ClaimValues is a list of accepted claim values. JSON and YAML accept a single value
// instead of a list. Numbers and booleans are compared as strings.
type ClaimValues []string

// UnmarshalJSON decodes a value or a list of values.
func (v *ClaimValues) UnmarshalJSON(data []byte) error {
	var value any
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.UseNumber() // preserves the precision of numbers
	if err := decoder.Decode(&value); err != nil {
		return err
	}
	list, ok := value.([]any)
	if !ok {
		list = []any{value}
	}
	*v = make(ClaimValues, 0, len(list))
	for _, one := range list {
		text, ok := claimText(one)
		if !ok {
			return errors.New("invalid claim value: must be a string, a number, true or false, or a list of them")
		}
		*v = append(*v, text)
	}
	return nil
}

// MarshalJSON encodes a single value without a list.
func (v ClaimValues) MarshalJSON() ([]byte, error) {
	if len(v) == 1 {
		return json.Marshal(v[0])
	}
	return json.Marshal([]string(v))
}

// Match reports whether a claim equals one of the values or is a list that contains one.
func (v ClaimValues) Match(claim any) bool {
	switch claim := claim.(type) {
	case []any:
		return slices.ContainsFunc(claim, v.matchOne)
	case []string:
		return slices.ContainsFunc(claim, func(one string) bool { return slices.Contains(v, one) })
	}
	return v.matchOne(claim)
}

func (v ClaimValues) matchOne(claim any) bool {
	text, ok := claimText(claim)
	return ok && slices.Contains(v, text)
}

// claimText returns a string, boolean or number as a string.
func claimText(claim any) (string, bool) {
	switch claim := claim.(type) {
	case string:
		return claim, true
	case bool:
		return strconv.FormatBool(claim), true
	case json.Number:
		return claim.String(), true
	case float64:
		return strconv.FormatFloat(claim, 'f', -1, 64), true
	case int64:
		return strconv.FormatInt(claim, 10), true
	}
	return "", false
}
