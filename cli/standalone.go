package cli

import (
	"path/filepath"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"
)

// StandAlone translates the arguments of the stand-alone binary to arguments of Caddy's
// command line:
//
//	rgate -c rgate.yaml -p 8080     → rgate rgate -c rgate.yaml -p 8080
//	rgate reload -c rgate.yaml      → rgate rgate reload -c rgate.yaml
//	rgate validate -c rgate.yaml    → rgate validate -c rgate.yaml --adapter rgate
//
// Other commands are passed to Caddy unchanged. StandAlone also sets the binary's name
// and description in the help text.
func StandAlone(args []string) []string {
	caddy.CustomBinaryName = "rgate"
	caddy.CustomLongDescription = longDescription

	if len(args) < 2 {
		return append(slices.Clone(args), commandName)
	}
	first, rest := args[1], args[2:]
	switch {
	case first == "-h" || first == "--help":
		return args
	case first == "-v" || first == "--version":
		return []string{args[0], commandName, "version"}
	case strings.HasPrefix(first, "-"), // flags of the rgate command
		slices.Contains([]string{"caddyfile", "hash-key", "healthcheck", "test-mail", "usage", "version"}, first),
		first == "reload" && (!isCaddys(rest) || slices.ContainsFunc(rest, func(arg string) bool { return strings.HasPrefix(arg, "--close") })):
		return slices.Insert(slices.Clone(args), 1, commandName)
	case slices.Contains([]string{"adapt", "run", "start", "validate"}, first) && !isCaddys(rest):
		args = append(slices.Clone(args), "--adapter", adapterName)
		if configFlag(rest) == "" {
			args = append(args, "--config", defaultConfig)
		}
	}
	return args
}

// isCaddys reports whether Caddy must handle the flags unchanged, such as for another
// adapter or a Caddyfile.
func isCaddys(flags []string) bool {
	for _, flag := range flags {
		if name, _, _ := strings.Cut(flag, "="); name == "--adapter" || name == "-a" ||
			name == "--resume" || name == "--help" || name == "-h" {
			return true
		}
	}
	file := configFlag(flags)
	return file != "" && !isYAML(file)
}

// configFlag returns the value of --config or -c.
func configFlag(flags []string) string {
	for i, flag := range flags {
		name, value, inline := strings.Cut(flag, "=")
		if name != "--config" && name != "-c" {
			continue
		}
		if inline {
			return value
		}
		if i+1 < len(flags) {
			return flags[i+1]
		}
	}
	return ""
}

func isYAML(file string) bool {
	ext := strings.ToLower(filepath.Ext(file))
	return ext == ".yaml" || ext == ".yml"
}
