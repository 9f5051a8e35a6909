package bandwidth

import (
	"io"
	"strings"
	"testing"

	"github.com/rgate/rgate/bandwidth/mailtest"
)

func TestSendTestFindsNotify(t *testing.T) {
	server := mailtest.Start(t)
	config := `{"apps": {"http": {"servers": {"a": {"routes": [{"handle": [{"handler": "rgate", "handle": [
		{"handler": "rgate_notify", "smtp": {"address": "` + server.Address + `", "ca_file": "` + server.CAFile + `", "username": "rgate", "password": "` + mailtest.Password + `",
		"from": "rgate@example.com", "to": ["ops@example.com"]}, "link": "https://gw.example.com/"}]}]}]}}}}}`
	if err := SendTest(t.Context(), []byte(config), io.Discard); err != nil {
		t.Fatal(err)
	}
	server.MustHave(t, "afterwards", "[rgate] This is a test of rgate's messages about quotas")
	if plain := server.Messages()[0].Plain; !strings.Contains(plain, "https://gw.example.com/") {
		t.Errorf("the mail is %s", plain)
	}
	for config, want := range map[string]string{
		`{"apps": {}}`: "add notify with smtp or webhook",
		strings.Replace(config, mailtest.Password, "x", 1): "check username and password",
		`[{"handler": "rgate_notify"}]`:                    "notify has no effect",
		`[{"handler": "rgate_notify", "smpt": {}}]`:        "reading notify",
		`[{"handler": "rgate_notify", "disabled": true}]`:  "notify is required",
	} {
		if err := SendTest(t.Context(), []byte(config), io.Discard); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", config, err, want)
		}
	}
}
