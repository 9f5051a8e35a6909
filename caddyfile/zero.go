package caddyfile

import (
	"encoding/json"
	"reflect"

	"github.com/rgate/rgate/internal/options"
)

// refuseZero returns an error for a field that is set to zero if zero selects its
// default.
func refuseZero(f field, value any) error {
	if f.tag.Get("default") == "" {
		return nil
	}
	encoded, err := json.Marshal(value)
	decoded := reflect.New(f.typ)
	if err != nil || json.Unmarshal(encoded, decoded.Interface()) != nil {
		return nil // reported by another check
	}
	return options.CheckZero(f.name, f.tag, decoded.Elem())
}
