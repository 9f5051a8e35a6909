package dockerupstreams

import (
	"bufio"
	"cmp"
	"io"
	"net"
	"os"
	"strings"
)

// site is the gateway's location as seen from an engine.
type site struct {
	// The ID of the gateway's container. Empty if the gateway does not run in a
	// container of this engine.
	self string

	// The networks of the gateway's container. Empty if self is.
	networks map[string]bool

	// The host to dial for host-networked containers and published ports.
	hostAddress string

	// For an engine on another machine, its address and the networks that the gateway
	// can reach. Empty for local engines, whose networks can all be reached.
	engine string
	routed map[string]bool

	// The engine's networks by name. nil: unknown.
	kinds map[string]networkKind
}

// networkKind holds the properties of a network that determine how to reach it.
type networkKind struct {
	driver   string
	internal bool
}

// bridge reports whether the engine's host has an interface in the network.
func (k networkKind) bridge() bool { return k.driver == "bridge" }

// reaches reports whether the gateway can reach addresses in a network.
func (at *site) reaches(name string) bool {
	return at.engine == "" || at.routed[name] || at.routed["*"]
}

// rank returns a number that is lower for networks that are preferred.
func (at *site) rank(name string) (rank int) {
	kind, known := at.kinds[name]
	if known && !kind.bridge() {
		rank++
	}
	if !at.networks[name] {
		rank += 2
	}
	if !at.reaches(name) {
		rank += 4
	}
	return rank
}

// withoutPorts returns the first network of a container whose ports the engine does not
// list, or "". Engines list exposed ports for bridge networks that are not internal.
func (at *site) withoutPorts(c *container) string {
	first := ""
	for _, n := range c.networks {
		kind, known := at.kinds[n.name]
		if !known || kind.bridge() && !kind.internal {
			return ""
		}
		first = cmp.Or(first, n.name)
	}
	return first
}

// origin holds the facts that the process detects once about its own container.
type origin struct {
	// The ID of the gateway's container, or its first 12 characters. Empty if unknown
	// or none.
	containerID string
	// Whether the gateway runs in a container.
	contained bool
	// Reports whether the gateway has the bridge interface of an engine. It is called
	// each time, because an engine creates its bridge on startup. nil: no bridge.
	bridged func() bool
}

// sharesHost reports whether the gateway reaches the host of a local engine, which does
// not list the gateway's container, on the loopback interface.
func (me origin) sharesHost() bool {
	// A container with a bridge is host-networked or runs its own engine. A VM booted
	// from a container image may also look like a container.
	return !me.contained || (me.bridged != nil && me.bridged())
}

// locate returns the site for an engine. own is the gateway's container on the engine,
// or nil. remoteHost is the host of a remote engine, or "". kinds are the engine's
// networks; nil: unknown.
func locate(me origin, own *container, remoteHost string, kinds map[string]networkKind) site {
	at := site{kinds: kinds}
	switch {
	case own != nil && own.hostNetworked():
		at.hostAddress = "127.0.0.1"
	case own != nil:
		at.networks = make(map[string]bool, len(own.networks))
		var gateway, gateway6 string
		for _, n := range own.networks {
			at.networks[n.name] = true
			if kind, known := kinds[n.name]; known && (!kind.bridge() || kind.internal) {
				continue // the gateway of the network is not the engine's host
			}
			gateway, gateway6 = cmp.Or(gateway, n.gateway), cmp.Or(gateway6, n.gateway6)
		}
		at.hostAddress = cmp.Or(gateway, gateway6, dockerHostName)
	case remoteHost != "":
		at.hostAddress = remoteHost
		at.engine = remoteHost
	case me.sharesHost():
		at.hostAddress = "127.0.0.1"
	default:
		at.hostAddress = dockerHostName
	}
	return at
}

// dockerHostName is the host's name inside a container, used if no gateway address is
// known.
const dockerHostName = "host.docker.internal"

// findOrigin detects from marker files and mounts whether the process runs in a
// container, and the container's ID.
func findOrigin() origin {
	me := origin{bridged: hasBridge}
	for _, marker := range []string{"/.dockerenv", "/run/.containerenv"} {
		if _, err := os.Stat(marker); err == nil {
			me.contained = true
		}
	}
	if mounts, err := os.Open("/proc/self/mountinfo"); err == nil {
		defer mounts.Close()
		me.containerID = ownID(mounts)
	}
	if me.containerID == "" && me.contained {
		// The default host name of a container is its short ID.
		if name, err := os.Hostname(); err == nil && len(name) == 12 && isHex(name) {
			me.containerID = name
		}
	}
	me.contained = me.contained || me.containerID != ""
	return me
}

// hasBridge reports whether a bridge interface of Docker or Podman exists.
func hasBridge() bool {
	for _, name := range []string{"docker0", "podman0", "cni-podman0"} {
		if _, err := net.InterfaceByName(name); err == nil {
			return true
		}
	}
	return false
}

// ownID returns a container's ID from its mounts (proc(5), "mountinfo"): engines mount
// /etc/hostname and similar files from a directory named after the container. Mounts at
// other paths, as on a host, are ignored.
func ownID(mountinfo io.Reader) string {
	lines := bufio.NewScanner(mountinfo)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 5 {
			continue
		}
		root, point := fields[3], fields[4]
		if point != "/etc/hostname" && point != "/etc/hosts" && point != "/etc/resolv.conf" {
			continue
		}
		for part := range strings.SplitSeq(root, "/") {
			if len(part) == 64 && isHex(part) {
				return part
			}
		}
	}
	return ""
}

func isHex(s string) bool {
	return strings.Trim(s, "0123456789abcdef") == ""
}
