package options

import (
	"fmt"
	"reflect"
)

// CheckZero reports an option that is written down as zero, or as an empty list, which
// its default would take the place of without a word. Fields with such a default, and
// for which zero is invalid, have it in the tag `default`.
func CheckZero(option string, tag reflect.StructTag, v reflect.Value) error {
	preset, ok := tag.Lookup("default")
	if !ok {
		return nil
	}
	if v.Kind() == reflect.Slice {
		if v.Len() > 0 {
			return nil
		}
		return Errorf(option, "%s cannot be empty: give it a value, or leave it out for the default, %s", option, preset)
	}
	if !v.IsZero() {
		return nil
	}
	return Errorf(option, "%s cannot be %v: use a value above that, or leave it out for the default, %s", option, zeroText(v), preset)
}

func zeroText(v reflect.Value) string {
	if v.Type() == durationType {
		return "0s"
	}
	return fmt.Sprint(v.Interface())
}
