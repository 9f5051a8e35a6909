package access

import (
	"bytes"
	"encoding/json"
	"errors"
	"slices"
	"strconv"
)

// ClaimValues are the values of which a claim must have one. In JSON and YAML, a
// single one needs no list; numbers, true and false are compared as they are
// written.
type ClaimValues []string

// UnmarshalJSON reads a value or a list of values.
func (v *ClaimValues) UnmarshalJSON(data []byte) error {
	var value any
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.UseNumber() // large ones would lose digits
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
			return errors.New("a claim is compared with text, a number, true or false, or a list of them")
		}
		*v = append(*v, text)
	}
	return nil
}

// MarshalJSON writes a single value without a list.
func (v ClaimValues) MarshalJSON() ([]byte, error) {
	if len(v) == 1 {
		return json.Marshal(v[0])
	}
	return json.Marshal([]string(v))
}

// match reports whether a claim has one of the values, or is a list that has one in
// it.
func (v ClaimValues) match(claim any) bool {
	switch claim := claim.(type) {
	case []any:
		return slices.ContainsFunc(claim, v.matchOne)
	case []string:
		return haveCommon(v, claim)
	}
	return v.matchOne(claim)
}

func (v ClaimValues) matchOne(claim any) bool {
	text, ok := claimText(claim)
	return ok && slices.Contains(v, text)
}

// haveCommon reports whether two lists have something in common.
func haveCommon(a, b []string) bool {
	return slices.ContainsFunc(a, func(one string) bool { return slices.Contains(b, one) })
}

// claimText is the text of a claim that is neither an object, a list nor nothing.
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
