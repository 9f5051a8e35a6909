package caddyfile

import (
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2/caddyconfig"
)

func TestEndOfTheProcess(t *testing.T) {
	for yaml, want := range map[string]string{
		"stats: true":                              `"http":{"grace_period":30000000000,"servers"`,
		"grace_period: 0s":                         `"http":{"servers"`,
		"grace_period: 1m\nshutdown_delay: 5s":     `"http":{"grace_period":60000000000,"shutdown_delay":5000000000,"servers"`,
		"grace_period: 1m\nstream_close_delay: 0s": `"stream_close_delay":0`,
	} {
		if config, err := adapt(yaml); err != nil || !strings.Contains(string(config), want) {
			t.Errorf("%q: got %s, error %v, want %s", yaml, config, err, want)
		}
		if _, err := Print([]byte(yaml), ""); err != nil {
			t.Errorf("%q: printing: %v", yaml, err)
		}
	}
	for yaml, want := range map[string]string{
		"\ngrace_period: -1s":      "2: invalid grace_period: must not be negative: use 0s for no limit, or remove it to use the default (30s)",
		"shutdown_delay: -1s":      "1: invalid shutdown_delay: must not be negative: remove it for no delay",
		"stream_close_delay: -1m":  "1: invalid stream_close_delay: must not be negative: use 0s to close streams at a reload",
		"grace_period: 30":         "1: grace_period has no unit: write 30s for seconds, or use ms, m, h or d",
		"shutdown_dealy: 5s":       `1: unknown key "shutdown_dealy" (did you mean "shutdown_delay"?)`,
		"server: {grace_period: }": `1: unknown key "grace_period": use one of trusted_proxies, timeouts, max_header_size`,
	} {
		if _, err := adapt(yaml); err == nil || err.Error() != "rgate.yaml:"+want {
			t.Errorf("%q:\ngot  %v\nwant %s", yaml, err, want)
		}
	}
}

// The default grace period ends requests that the file allows to take longer.
func TestWarningOfTheDefaultGracePeriod(t *testing.T) {
	const yaml = "backends:\n- {name: a, dial: ['127.0.0.1:1'], timeouts: {total: 30s}}\n- {name: b, dial: ['127.0.0.1:1'], timeouts: {total: 2m}}\n" +
		"groups:\n- routes:\n  - {path_prefix: /a, backend: a, timeouts: {total: 5m}}\n  - {path_prefix: /b, backend: b}\n"
	const want = "requests may take up to 5m0s (route /a, backend b), but their connections are closed 30s after a signal to end the process: " +
		"set grace_period, with 0s for no limit as in earlier versions"
	_, warnings, err := caddyconfig.GetAdapter("rgate").Adapt([]byte(yaml), nil)
	if err != nil || len(warnings) != 1 || warnings[0].Message != want || warnings[0].Line != 6 {
		t.Errorf("got %+v, error %v, want %q at line 6", warnings, err, want)
	}
	_, warnings, err = caddyconfig.GetAdapter("rgate").Adapt([]byte("grace_period: 10s\n"+yaml), nil)
	if err != nil || warnings != nil {
		t.Errorf("with grace_period: got %+v, error %v", warnings, err)
	}
}
