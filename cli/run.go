package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"regexp"
	"runtime/debug"
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
	caddyfile.OverrideNetwork(lastingNetwork)
	// What is logged until the configuration is loaded goes where that says, or
	// nowhere: if it cannot be loaded, one message shall tell it.
	_, logger, _ := caddy.BufferedLog()

	tuneGC()

	cfg, warnings, err := loadWithWarnings(file)
	if err != nil {
		return err
	}
	if err := probe(cfg); err != nil {
		return err
	}
	if err := rehearse(cfg); err != nil {
		return fmt.Errorf("%s: %s", file, explain(err))
	}
	caddy.TrapSignals()
	caddy.SetLastConfig(file, adapterName, func(file, _ string) error {
		cfg, warnings, err := loadWithWarnings(file)
		if err != nil {
			return err
		}
		logWarnings(warnings)
		return caddy.Load(cfg, true)
	})
	if err := caddy.Load(cfg, true); err != nil {
		return err
	}
	caddy.UnbufferDefaultLogger(logger)
	logWarnings(warnings)
	select {}
}

// tuneGC lets the heap grow to five times what is live before garbage is
// collected, instead of twice: what is live in a gateway is small, and collecting
// is a tenth of what a request costs it. Close to the memory limit of the
// container or machine, the runtime collects as often as it must. GOGC and
// GOMEMLIMIT win.
func tuneGC() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(400)
	}
	_, _ = memlimit.Set(memlimit.WithProvider(memlimit.ApplyFallback(memlimit.FromCgroup, memlimit.FromSystem)))
}

// probe tries the addresses that a configuration listens at. Caddy would find a
// busy one out only after it has opened others, and never if the program that
// has it is another Caddy: they would share it, and the requests.
func probe(cfg []byte) error {
	var config struct {
		Admin struct {
			Listen   string
			Disabled bool
		}
		Apps struct {
			HTTP struct {
				Servers map[string]struct{ Listen []string }
			}
		}
	}
	if err := json.Unmarshal(cfg, &config); err != nil {
		return fmt.Errorf("reading the adapted configuration: %w", err)
	}
	for _, server := range config.Apps.HTTP.Servers {
		for _, address := range server.Listen {
			if err := tryListen(address); err != nil {
				return err
			}
		}
	}
	if config.Admin.Disabled {
		return nil
	}
	if config.Admin.Listen == "" {
		config.Admin.Listen = caddy.DefaultAdminListen
	}
	if err := tryListen(config.Admin.Listen); err != nil {
		return fmt.Errorf("opening the admin API: %w", err)
	}
	return nil
}

// rehearse sets up all modules of a configuration and takes them down again.
// Some find out only then what is wrong with their options, at which time Caddy
// has opened the admin API already and written to the log.
func rehearse(cfg []byte) error {
	var config map[string]json.RawMessage
	if err := json.Unmarshal(cfg, &config); err != nil {
		return fmt.Errorf("reading the adapted configuration: %w", err)
	}
	config["admin"] = json.RawMessage(`{"disabled": true}`)
	config["logging"] = json.RawMessage(`{"logs": {"default": {"writer": {"output": "discard"}}}}`)
	quiet, err := json.Marshal(config)
	if err != nil {
		return fmt.Errorf("reading the adapted configuration: %w", err)
	}
	parsed := new(caddy.Config)
	if err := caddy.StrictUnmarshalJSON(quiet, parsed); err != nil {
		return err
	}
	return caddy.Validate(parsed)
}

func tryListen(address string) error {
	parsed, err := caddy.ParseNetworkAddress(address)
	if err != nil || parsed.Network != "tcp" && parsed.Network != lastingNetwork || parsed.StartPort == 0 {
		return nil // left to Caddy
	}
	for port := range parsed.PortRangeSize() {
		l, err := net.Listen("tcp", parsed.JoinHostPort(port))
		if err != nil {
			return err
		}
		if err := l.Close(); err != nil {
			return err
		}
	}
	return nil
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
			return fmt.Sprintf("the address %s of the admin API is in use by another program: set admin in the configuration, or to off (CADDY_ADMIN does the same)", busy[1])
		}
		return fmt.Sprintf("the address %s is in use by another program: choose another port with -p, or listen in the configuration", busy[1])
	}
	return strings.TrimSpace(provisioning.ReplaceAllString(text, ""))
}
