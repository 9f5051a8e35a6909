// Package cli implements rgate's commands: `caddy rgate` in a Caddy build with the
// module, and `rgate` in the stand-alone binary.
package cli

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"github.com/rgate/rgate/caddyfile"
)

const (
	commandName   = "rgate"
	adapterName   = "rgate"
	defaultConfig = "rgate.yaml"
	modulePath    = "github.com/rgate/rgate"
)

const longDescription = `rgate is an API gateway for Docker. It finds the containers of a backend by
their labels, and routes requests to them by path.

	$ rgate -c rgate.yaml -p 8080

runs the gateway that rgate.yaml describes. It follows the containers as they
start and stop. SIGUSR1 or 'rgate reload' loads a changed file. SIGTERM stops the
gateway when the requests in flight have finished, or the grace period is over. A second
one stops it immediately.

rgate consists of Caddy modules. The other commands are Caddy's, and accept
rgate's YAML as well as a Caddyfile or JSON.`

func init() {
	caddycmd.RegisterCommand(caddycmd.Command{
		Name:      commandName,
		Usage:     "[-c <file>] [-p <port>]",
		Short:     "Runs an API gateway for Docker containers from a YAML file",
		Long:      longDescription,
		CobraFunc: configure,
	})
}

// configure adds flags and subcommands to cmd.
func configure(cmd *cobra.Command) {
	cmd.Args = noArgs
	cobra.AddTemplateFunc("asTyped", asTyped)
	cmd.SetUsageTemplate(strings.NewReplacer("{{.UseLine}}", "{{asTyped .UseLine}}", "{{.CommandPath}}", "{{asTyped .CommandPath}}").Replace(cmd.UsageTemplate()))
	file := configFlagOf(cmd)
	port := cmd.Flags().IntP("port", "p", 0, "The port to listen on, instead of the port in the file (default 8080)")
	cmd.RunE = withPlainErrors(func() error { return run(*file, *port, cmd.Flags().Changed("port")) })

	reloading := &cobra.Command{
		Use:   "reload [-c <file>] [--address <admin>] [--close]",
		Short: "Reloads the configuration of the running gateway without dropping requests",
		Args:  noArgs,
	}
	reloadFile := configFlagOf(reloading)
	address := reloading.Flags().String("address", "", "The address of the admin API (default: the address in the file, else "+caddy.DefaultAdminListen+")")
	closing := reloading.Flags().Bool("close", false, "Close the WebSockets of the previous configurations, which otherwise stay open for stream_close_delay")
	reloading.RunE = withPlainErrors(func() error { return reload(*reloadFile, *address, *closing) })

	printing := &cobra.Command{
		Use:   "caddyfile [-c <file>]",
		Short: "Converts a YAML file to a Caddyfile and prints it",
		Args:  noArgs,
	}
	printFile := configFlagOf(printing)
	printing.RunE = withPlainErrors(func() error { return printCaddyfile(*printFile) })

	checking := &cobra.Command{
		Use:   "healthcheck [--url <url>] [--strict]",
		Short: "Exits with 0 if the local gateway responds, otherwise with 1",
		Args:  noArgs,
	}
	url := checking.Flags().String("url", "", "The URL to request (default: the admin API)")
	strict := checking.Flags().Bool("strict", false, "Also exit with 1 if the gateway or a dependency is unhealthy, such as a Docker engine")
	checking.MarkFlagsMutuallyExclusive("url", "strict")
	checking.RunE = withPlainErrors(func() error { return healthcheck(*url, *strict) })

	version := &cobra.Command{
		Use:   "version",
		Short: "Prints the versions of rgate, Caddy and Go",
		Args:  noArgs,
		Run:   func(*cobra.Command, []string) { fmt.Println(versions()) },
	}
	cmd.AddCommand(reloading, printing, hashKeyCommand(), usageCommand(), testMailCommand(), checking, version)
}

// noArgs returns an error if there are arguments.
func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	path := asTyped(cmd.CommandPath())
	return fmt.Errorf("unknown command %q for %q: use only flags, see `%s --help`", args[0], path, path)
}

// asTyped returns a command path as users type it. In the stand-alone binary, it
// removes the repeated command name.
func asTyped(path string) string {
	if caddy.CustomBinaryName != commandName {
		return path
	}
	return strings.Replace(path, commandName+" "+commandName, commandName, 1)
}

func configFlagOf(cmd *cobra.Command) *string {
	return cmd.Flags().StringP("config", "c", defaultConfig, "The configuration file: YAML, or a Caddyfile or JSON, depending on its name")
}

// withPlainErrors returns a function that runs f, prints its error as one message, and
// returns the error, so that the process exits with status 1.
func withPlainErrors(f func() error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, _ []string) error {
		err := f()
		if err != nil {
			cmd.SilenceErrors, cmd.Root().SilenceErrors = true, true
			fmt.Fprintln(os.Stderr, "rgate: "+explain(err))
		}
		return err
	}
}

// load reads a configuration file and adapts it to Caddy JSON.
func load(file string) ([]byte, error) {
	cfg, _, err := loadWithWarnings(file)
	return cfg, err
}

func loadWithWarnings(file string) ([]byte, []caddyconfig.Warning, error) {
	if !isYAML(file) && file != "-" {
		cfg, _, _, err := caddycmd.LoadConfig(file, "") // it logs the warnings
		return cfg, nil, err
	}
	body, err := readConfig(file)
	if err != nil {
		return nil, nil, err
	}
	return caddyconfig.GetAdapter(adapterName).Adapt(body, map[string]any{"filename": file})
}

// readConfig reads a file, or the standard input if file is "-".
func readConfig(file string) ([]byte, error) {
	if file == "-" {
		return io.ReadAll(os.Stdin)
	}
	return os.ReadFile(file)
}

// logWarnings logs warnings of a config adapter.
func logWarnings(warnings []caddyconfig.Warning) {
	for _, w := range warnings {
		caddy.Log().Warn(w.Message, zap.String("file", w.File), zap.Int("line", w.Line), zap.String("option", w.Directive))
	}
}

// reload sends a configuration file to the running gateway. YAML is adapted by the
// gateway, which applies its port override. closeStreams closes the WebSockets of the
// previous configurations.
func reload(file, address string, closeStreams bool) error {
	cfg, err := load(file)
	if err != nil {
		return err
	}
	if address == "" {
		if address, err = caddycmd.DetermineAdminAPIAddress("", cfg, file, ""); err != nil {
			return fmt.Errorf("finding the admin API: %w", err)
		}
	}
	// The gateway reloads this file on SIGUSR1.
	header := http.Header{"Cache-Control": {"must-revalidate"}, "Caddy-Config-Source-File": {file}, "Caddy-Config-Source-Adapter": {adapterName}}
	if isYAML(file) {
		header.Set("Content-Type", "text/"+adapterName)
		if cfg, err = os.ReadFile(file); err != nil {
			return err
		}
	}
	response, err := caddycmd.AdminAPIRequest(address, http.MethodPost, "/load", header, bytes.NewReader(cfg))
	if err != nil {
		return fmt.Errorf("loading %s into the gateway whose admin API is at %s: %w", filepath.Base(file), address, err)
	}
	if err := response.Body.Close(); err != nil || !closeStreams {
		return err
	}
	if response, err = caddycmd.AdminAPIRequest(address, http.MethodPost, "/rgate/streams/close", nil, nil); err != nil {
		return fmt.Errorf("closing the WebSockets of the previous configuration: %w", err)
	}
	return response.Body.Close()
}

func printCaddyfile(file string) error {
	body, err := readConfig(file)
	if err != nil {
		return err
	}
	text, err := caddyfile.Print(body, file)
	if err != nil {
		return err
	}
	_, err = os.Stdout.Write(text)
	return err
}

// healthcheck returns an error if the local gateway does not respond, or, if strict, if
// the gateway or a dependency is unhealthy.
func healthcheck(url string, strict bool) error {
	if url == "" {
		var report struct {
			Endpoints []struct {
				Endpoint, Error string
				Connected       bool
			}
		}
		if err := adminReport("/rgate/docker?near_misses=false", &report); err != nil || !strict {
			return err
		}
		for _, e := range report.Endpoints {
			if !e.Connected {
				return fmt.Errorf("the Docker engine %s is unavailable: %s", e.Endpoint, cmp.Or(e.Error, "not connected yet"))
			}
		}
		var health struct {
			Dependencies []struct{ Name, Status, Error string }
		}
		if err := adminReport("/rgate/gateway/health", &health); err != nil {
			return err
		}
		for _, d := range health.Dependencies {
			if d.Status != "healthy" {
				return fmt.Errorf("the dependency %s is %s: %s", d.Name, d.Status, d.Error)
			}
		}
		return nil
	}
	client := http.Client{Timeout: 5 * time.Second}
	response, err := client.Get(url)
	if err != nil {
		return fmt.Errorf("requesting the gateway: %w", err)
	}
	defer response.Body.Close()
	if response.StatusCode >= http.StatusBadRequest {
		return fmt.Errorf("requesting the gateway: %s responded with status %s", url, response.Status)
	}
	return nil
}

// adminReport requests a report of the admin API.
func adminReport(path string, into any) error {
	address, err := caddycmd.DetermineAdminAPIAddress(os.Getenv("CADDY_ADMIN"), nil, "", "")
	if err != nil {
		return err
	}
	response, err := caddycmd.AdminAPIRequest(address, http.MethodGet, path, nil, nil)
	if err != nil {
		return fmt.Errorf("requesting the admin API at %s: %w", address, err)
	}
	defer response.Body.Close()
	if err := json.NewDecoder(response.Body).Decode(into); err != nil {
		return fmt.Errorf("requesting the admin API at %s: reading %s: %w", address, path, err)
	}
	return nil
}

// versions returns the versions of rgate, Caddy and Go in this binary.
func versions() string {
	own := "(devel)"
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, module := range append(info.Deps, &info.Main) {
			if module.Path == modulePath {
				own = module.Version
			}
		}
	}
	simple, _ := caddy.Version()
	return fmt.Sprintf("rgate %s (Caddy %s, %s %s/%s)", own, simple, runtime.Version(), runtime.GOOS, runtime.GOARCH)
}
