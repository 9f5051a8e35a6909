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

// run runs the gateway until a signal terminates the process. It only returns if the
// gateway cannot start.
func run(file string, port int, override bool) error {
	if override {
		if port < 1 || port > 65535 {
			return fmt.Errorf("invalid port %d: must be from 1 to 65535", port)
		}
		if !isYAML(file) {
			return fmt.Errorf("-p requires a YAML file: remove -p, and set the port in %s", file)
		}
		caddyfile.OverridePort(port)
	}
	caddyfile.OverrideNetwork(sharedNetwork)
	// Buffer logs until the configured logs are open. If the configuration cannot be
	// loaded, the buffer is dropped, and the error is printed as one message.
	_, logger, _ := caddy.BufferedLog()

	tuneGC()

	cfg, warnings, err := loadWithWarnings(file)
	if err != nil {
		return err
	}
	if err := probe(cfg); err != nil {
		return err
	}
	if err := dryRun(cfg); err != nil {
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

// tuneGC sets GOGC to 400: the heap grows to five times the live heap before a
// collection. The live heap of a gateway is small, and GC accounts for a tenth of the
// cost of a request. It also sets a memory limit. The GOGC and GOMEMLIMIT environment
// variables take precedence.
func tuneGC() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(400)
	}
	_, _ = memlimit.Set(memlimit.WithProvider(memlimit.ApplyFallback(memlimit.FromCgroup, memlimit.FromSystem)))
}

// probe returns an error if an address of a configuration is in use. Caddy detects this
// only after it has opened other addresses. It does not detect another Caddy process,
// which can share the address through SO_REUSEPORT.
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

// dryRun provisions all modules of a configuration and cleans them up. Some modules
// validate their options only when provisioned, after Caddy has started the admin API
// and logged messages.
func dryRun(cfg []byte) error {
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
	if err != nil || parsed.Network != "tcp" && parsed.Network != sharedNetwork || parsed.StartPort == 0 {
		return nil // validated by Caddy
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
	// Caddy prefixes an error with the chain of modules that were being loaded.
	provisioning = regexp.MustCompile(`^.*provision http\.handlers\.rgate: `)
	busyAddress  = regexp.MustCompile(`listen \w+ (\S+): bind: address already in use`)
)

// explain converts a startup error into a message with a remedy.
func explain(err error) string {
	text := err.Error()
	if errors.Is(err, fs.ErrNotExist) {
		var pathErr *fs.PathError
		if errors.As(err, &pathErr) {
			return fmt.Sprintf("%s does not exist: set the path of the configuration with -c FILE", pathErr.Path)
		}
	}
	if busy := busyAddress.FindStringSubmatch(text); busy != nil {
		if strings.Contains(text, "admin") {
			return fmt.Sprintf("the address %s of the admin API is in use by another program: set admin in the configuration, or the variable CADDY_ADMIN, to another address or to off", busy[1])
		}
		return fmt.Sprintf("the address %s is in use by another program: choose another port with -p, or listen in the configuration", busy[1])
	}
	return strings.TrimSpace(provisioning.ReplaceAllString(text, ""))
}
