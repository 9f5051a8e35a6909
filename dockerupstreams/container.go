package dockerupstreams

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"
)

// container holds the properties of a container that the rules use. It is immutable
// once it is in a table, except for stale.
type container struct {
	id     string
	name   string
	labels map[string]string

	// running, paused, restarting, removing, dead, …
	state  string
	status string // for people, such as "Exited (1) 2 minutes ago"; empty if running
	health health

	networkMode string
	networks    []network // sorted by name
	ports       []port    // sorted; TCP only

	// The ID of the container whose network the container uses. Empty if it has its own.
	networkOwner string

	// Whether the container runs a step of a classic docker build. Its labels are those
	// of the image.
	buildStep bool

	// Whether an event changed the container since it was listed. Selected containers
	// are listed again soon; others stay stale.
	stale bool
}

// network is a container's attachment to a network. Addresses may be empty.
type network struct {
	name              string
	ipv4, ipv6        string
	gateway, gateway6 string
}

// address returns the container's IPv4 address in the network, or else its IPv6
// address.
func (n network) address() string { return cmp.Or(n.ipv4, n.ipv6) }

// port is a TCP port that a container exposes. If public is not 0, the engine publishes
// the port at ip:public.
type port struct {
	private, public uint16
	ip              string
}

type health uint8

const (
	healthNone health = iota // the container has no health check
	healthPassing
	healthStarting
	healthFailing
)

// parseHealth parses the health status. Before API 1.52, the status text contains it:
// "Up 5 seconds (health: starting)".
func parseHealth(word, status string) health {
	if word == "" {
		open := strings.LastIndexByte(status, '(')
		if open < 0 || !strings.HasSuffix(status, ")") {
			return healthNone
		}
		word = strings.TrimPrefix(status[open+1:len(status)-1], "health: ")
	}
	switch word {
	case "healthy":
		return healthPassing
	case "starting":
		return healthStarting
	case "unhealthy":
		return healthFailing
	default: // "none", or something else in parentheses, such as "Paused"
		return healthNone
	}
}

// parseName returns a container's own name. Names that come from the links of other
// containers contain a second slash and are ignored.
func parseName(names []string) string {
	best := ""
	for _, name := range names {
		name = strings.TrimPrefix(name, "/")
		if name == "" || strings.Contains(name, "/") {
			continue
		}
		if best == "" || name < best {
			best = name
		}
	}
	return best
}

// hostNetworked reports whether the container uses the host's network. Some versions of
// Podman list the mode host for all containers.
func (c *container) hostNetworked() bool {
	_, attached := c.network("host")
	return c.networkMode == "host" && attached
}

// has reports whether an address may be one of the container's: a host name, an address in
// one of its networks, or any address of its host.
func (c *container) has(address string) bool {
	ip, err := netip.ParseAddr(address)
	return err != nil || c.hostNetworked() || slices.ContainsFunc(c.networks, func(n network) bool {
		return slices.ContainsFunc([]string{n.ipv4, n.ipv6}, func(text string) bool {
			own, err := netip.ParseAddr(text)
			return err == nil && own == ip.Unmap()
		})
	})
}

// oneOff reports whether the container was started by `docker compose run`.
func (c *container) oneOff() bool { return strings.EqualFold(c.labels[labelComposeOneOff], "true") }

// network returns the attached network with this name. A Compose network also matches
// without its project prefix.
func (c *container) network(name string) (network, bool) {
	names := []string{name}
	if project := c.labels[labelComposeProject]; project != "" {
		names = append(names, project+"_"+name)
	}
	for _, name := range names {
		i := slices.IndexFunc(c.networks, func(n network) bool { return n.name == name })
		if i >= 0 {
			return c.networks[i], true
		}
	}
	return network{}, false
}

func sortPorts(ports []port) {
	slices.SortFunc(ports, func(a, b port) int {
		return cmp.Or(cmp.Compare(a.private, b.private), cmp.Compare(a.public, b.public), cmp.Compare(a.ip, b.ip))
	})
}

func sortNetworks(networks []network) {
	slices.SortFunc(networks, func(a, b network) int { return cmp.Compare(a.name, b.name) })
}
