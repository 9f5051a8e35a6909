package dockerupstreams

import (
	"strconv"
	"strings"

	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/rgate/rgate/internal/options"
)

// UnmarshalCaddyfile parses the source from Caddyfile tokens. Syntax:
//
//	dynamic docker_labels [<label>=<value>...] {
//	    match_labels <label>=<value>...
//	    port         <port>
//	    network      <name>
//	    scheme       http|https|h2c
//	    health       healthy|any
//	    host_port
//	    include      one_offs|build_steps|local_addresses...
//	    endpoint     [<host> [<cert_path>]] {
//	        cert_path <folder>
//	        routed    <network>...
//	        drain     <duration>
//	        stop_signals <signal>...
//	        trust     <duration>
//	    }
//	}
//
// Labels on the first line, in match_labels and in repeated match_labels are combined.
// include and endpoint may be repeated.
func (s *Source) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // consume the name of the source
	if err := s.addLabels(d, d.RemainingArgs()); err != nil {
		return err
	}
	for d.NextBlock(0) {
		if err := s.unmarshalOption(d); err != nil {
			return err
		}
	}
	if err := s.Validate(); err != nil {
		return d.WrapErr(err)
	}
	return nil
}

func (s *Source) unmarshalOption(d *caddyfile.Dispenser) error {
	option := d.Val()
	if option == "endpoint" {
		var endpoint Endpoint
		err := options.Unmarshal(d, &endpoint)
		s.Endpoints = append(s.Endpoints, endpoint)
		return err
	}
	args := d.RemainingArgs()
	switch option {
	case "match_labels":
		if len(args) == 0 {
			return d.ArgErr()
		}
		return s.addLabels(d, args)
	case "include":
		if len(args) == 0 {
			return d.ArgErr()
		}
		s.Include = append(s.Include, args...)
		return nil
	case "host_port":
		if len(args) != 0 {
			return d.ArgErr()
		}
		s.HostPort = true
		return nil
	}

	words := map[string]*string{"network": &s.Network, "scheme": &s.Scheme, "health": &s.Health}
	if word := words[option]; word != nil {
		if len(args) != 1 {
			return d.ArgErr()
		}
		*word = args[0]
		return nil
	}
	if option != "port" {
		return d.Errf("unrecognized docker_labels option '%s': use match_labels, port, network, scheme, health, host_port, include or endpoint", option)
	}
	if len(args) != 1 {
		return d.ArgErr()
	}
	port, err := strconv.Atoi(args[0])
	if err != nil || port < 1 || port > 65535 {
		return d.Errf("invalid port '%s': must be from 1 to 65535", args[0])
	}
	s.Port = port
	return nil
}

// addLabels adds labels of the form name=value to MatchLabels.
func (s *Source) addLabels(d *caddyfile.Dispenser, pairs []string) error {
	for _, pair := range pairs {
		name, value, ok := strings.Cut(pair, "=")
		if !ok || strings.TrimSpace(name) == "" {
			return d.Errf("invalid label '%s': must be name=value", pair)
		}
		if old, ok := s.MatchLabels[name]; ok && old != value {
			return d.Errf("label '%s' is set twice: '%s' and '%s': remove one of the two", name, old, value)
		}
		if s.MatchLabels == nil {
			s.MatchLabels = make(map[string]string)
		}
		s.MatchLabels[name] = value
	}
	return nil
}

// Interface guard
var _ caddyfile.Unmarshaler = (*Source)(nil)
