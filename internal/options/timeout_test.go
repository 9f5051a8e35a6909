package options

import (
	"encoding/json"
	"testing"
)

func TestTimeoutDistinguishesZeroFromUnset(t *testing.T) {
	type limited struct {
		Limit Timeout `json:"limit,omitempty"`
	}
	for text, want := range map[string]Timeout{`{}`: 0, `{"limit":null}`: 0, `{"limit":0}`: TimeoutOff, `{"limit":"0s"}`: TimeoutOff, `{"limit":"1s"}`: 1e9} {
		var o limited
		if err := json.Unmarshal([]byte(text), &o); err != nil || o.Limit != want {
			t.Errorf("%s: got %d, %v, want %d", text, o.Limit, err, want)
		}
		encoded, err := json.Marshal(o)
		again := limited{}
		if err != nil || json.Unmarshal(encoded, &again) != nil || again != o {
			t.Errorf("%s: encoded as %s, read as %+v, %v", text, encoded, again, err)
		}
	}
}
