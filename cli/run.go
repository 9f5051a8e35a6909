package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"regexp"
	"strings"

	"github.com/KimMachineGun/automemlimit/memlimit"
	"github.com/caddyserver/caddy/v2"

	"github.com/rgate/rgate/caddyfile"
)

// run runs the gateway until a signal ends the process. It returns only if the
// gateway cannot start.
func run(file string, port int, override bool) error {
	if override {
		if port < 1 || port > 65535 {
			return fmt.Errorf("port %d does not exist: use -p with 1 to 65535", port)
		}
		if !isYAML(file) {
			return fmt.Errorf("%s says itself where it listens: use -p with a YAML file only", file)
		}
		caddyfile.OverridePort(port)
	}
	// What is logged until the configuration is loaded goes where that says, or
	// nowhere: if it cannot be loaded, one message shall tell it.
	_, logger, _ := caddy.BufferedLog()

	// As Caddy's own run command: collect garbage rather than be killed for it.
	_, _ = memlimit.Set(memlimit.WithProvider(memlimit.ApplyFallback(memlimit.FromCgroup, memlimit.FromSystem)))

	cfg, err := load(file)
	if err != nil {
		return err
	}
	caddy.TrapSignals()
	caddy.SetLastConfig(file, adapterName, func(file, _ string) error {
		cfg, err := load(file)
		if err != nil {
			return err
		}
		return caddy.Load(cfg, true)
	})
	if err := caddy.Load(cfg, true); err != nil {
		return err
	}
	caddy.UnbufferDefaultLogger(logger)
	select {}
}

var (
	// Caddy names every module on the way to the one that complains.
	provisioning = regexp.MustCompile(`^.*provision http\.handlers\.rgate: `)
	busyAddress  = regexp.MustCompile(`listen \w+ (\S+): bind: address already in use`)
)

// explain turns an error of starting a gateway into the message for its user.
func explain(err error) string {
	text := err.Error()
	if errors.Is(err, fs.ErrNotExist) {
		var pathErr *fs.PathError
		if errors.As(err, &pathErr) {
			return fmt.Sprintf("%s does not exist: name the configuration with -c FILE", pathErr.Path)
		}
	}
	if busy := busyAddress.FindStringSubmatch(text); busy != nil {
		if strings.Contains(text, "admin") {
			return fmt.Sprintf("the address %s of the admin API is in use by another program: set admin in the configuration, or to off (%s)", busy[1], "CADDY_ADMIN does the same")
		}
		return fmt.Sprintf("the address %s is in use by another program: choose another port with -p, or listen in the configuration", busy[1])
	}
	return strings.TrimSpace(provisioning.ReplaceAllString(text, ""))
}
