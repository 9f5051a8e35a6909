package cli

import (
	"slices"
	"strings"
	"testing"
)

func TestStandAloneArguments(t *testing.T) {
	for _, test := range []struct{ args, want string }{
		{"", "rgate"},
		{"-c x.yaml -p 8080", "rgate -c x.yaml -p 8080"},
		{"--config=x.yaml", "rgate --config=x.yaml"},
		{"-p 8080", "rgate -p 8080"},
		{"-h", "-h"},
		{"help", "help"},
		{"--version", "rgate version"},
		{"version", "rgate version"},
		{"caddyfile -c x.yaml", "rgate caddyfile -c x.yaml"},
		{"healthcheck", "rgate healthcheck"},
		{"hash-key --generate", "rgate hash-key --generate"},
		{"test-mail -c x.yaml", "rgate test-mail -c x.yaml"},
		{"reload", "rgate reload"},
		{"reload -c x.yml", "rgate reload -c x.yml"},
		{"reload --config Caddyfile", "reload --config Caddyfile"},
		{"reload --config x.json --force", "reload --config x.json --force"},
		{"validate", "validate --adapter rgate --config rgate.yaml"},
		{"validate -c x.yaml", "validate -c x.yaml --adapter rgate"},
		{"validate --config=x.yaml", "validate --config=x.yaml --adapter rgate"},
		{"validate --config Caddyfile", "validate --config Caddyfile"},
		{"adapt --config x.yaml --adapter yaml", "adapt --config x.yaml --adapter yaml"},
		{"adapt --config x.yaml --pretty", "adapt --config x.yaml --pretty --adapter rgate"},
		{"run --config x.JSON", "run --config x.JSON"},
		{"run --resume", "run --resume"},
		{"start -c x.yaml", "start -c x.yaml --adapter rgate"},
		{"run --help", "run --help"},
		{"list-modules", "list-modules"},
	} {
		args := append([]string{"/bin/rgate"}, strings.Fields(test.args)...)
		want := append([]string{"/bin/rgate"}, strings.Fields(test.want)...)
		if got := StandAlone(args); !slices.Equal(got, want) {
			t.Errorf("%q: got %q, want %q", test.args, got, want)
		}
	}
}
