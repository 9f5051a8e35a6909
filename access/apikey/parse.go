package apikey

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"

	"gopkg.in/yaml.v3"

	"github.com/rgate/rgate/internal/options"
)

// parseKeys parses a YAML or JSON list of keys. Errors begin with the line number, if
// known.
func parseKeys(data []byte) (keySet, error) {
	if json.Valid(data) {
		// The YAML parser accepts JSON, except for tabs between tokens.
		data = bytes.ReplaceAll(data, []byte{'\t'}, []byte{' '})
	}
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	var root, more yaml.Node
	switch err := decoder.Decode(&root); {
	case errors.Is(err, io.EOF):
		return nil, errors.New("the file is empty: write [] for no keys")
	case err != nil:
		return nil, yamlError(err)
	}
	if err := decoder.Decode(&more); !errors.Is(err, io.EOF) {
		return nil, errors.New("the file contains several documents: move all keys into one list")
	}
	list := root.Content[0]
	if list.Kind != yaml.SequenceNode {
		return nil, fmt.Errorf("line %d: invalid key file: must be a list of keys such as - {name: …, sha256: …}", list.Line)
	}
	keys := make(keySet, len(list.Content))
	for i, item := range list.Content {
		key, err := decodeKey(item)
		if err == nil {
			if wrong := keys.add(key, i+1); wrong != nil {
				err = wrong
			}
		}
		if err != nil && !strings.HasPrefix(err.Error(), "line ") {
			err = fmt.Errorf("line %d: %w", item.Line, err)
		}
		if err != nil {
			return nil, err
		}
	}
	return keys, nil
}

var keyOptions = []string{"name", "sha256", "scopes", "roles", "expires", "rate_limit"}

// decodeKey decodes a key through JSON, so that the file supports the same options as the
// configuration. Errors contain no values, because values can be secrets.
func decodeKey(item *yaml.Node) (*Key, error) {
	if item.Kind == yaml.AliasNode {
		item = item.Alias
	}
	if item.Kind != yaml.MappingNode {
		return nil, errors.New("invalid key: must be a map such as {name: …, sha256: …}")
	}
	var options map[string]any
	if err := item.Decode(&options); err != nil {
		return nil, yamlError(err)
	}
	text, err := json.Marshal(options)
	if err != nil {
		return nil, errors.New("invalid value: must be a string, a number or a list")
	}
	key := new(Key)
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(key); err != nil {
		return nil, optionError(err)
	}
	return key, nil
}

// optionError converts a JSON decoding error into an error about an option of a key. It
// contains an unknown name only if it resembles an option, because it can be a secret, as
// in {secret}.
func optionError(err error) error {
	if name, ok := strings.CutPrefix(err.Error(), "json: unknown field "); ok {
		name = strings.Trim(name, `"`)
		if hint := options.Suggest(name, keyOptions); hint != "" {
			return fmt.Errorf("unknown option %q%s: use %s", name, hint, strings.Join(keyOptions, ", "))
		}
		return fmt.Errorf("unknown option: use %s", strings.Join(keyOptions, ", "))
	}
	if errors.Is(err, errMoment) {
		return errors.New("expires must be a string in quotes: a date such as 2027-01-31, or a time such as 2027-01-31T12:00:00Z")
	}
	var wrong *json.UnmarshalTypeError
	if errors.As(err, &wrong) {
		want := "a map"
		switch kind := wrong.Type.Kind(); {
		case wrong.Field == "scopes", wrong.Field == "roles":
			want = "a list of strings in quotes"
		case kind == reflect.String:
			want = "a string in quotes"
		case kind == reflect.Int64:
			want = "a whole number"
		}
		return fmt.Errorf("%s must be %s", wrong.Field, want)
	}
	return errors.New("invalid window: must be a duration such as 60s")
}

// yamlError returns an error of the YAML parser on one line. It usually begins with the
// line number.
func yamlError(err error) error {
	var several *yaml.TypeError
	if errors.As(err, &several) {
		return errors.New(strings.Join(several.Errors, "; "))
	}
	return errors.New(strings.TrimPrefix(err.Error(), "yaml: "))
}
