package dockerupstreams

import (
	"bufio"
	"cmp"
	"io"
	"net"
	"os"
	"strings"
)

// site is where the gateway stands, seen from an engine.
type site struct {
	// The ID of the container that the gateway runs in. Empty: it runs in none of this
	// engine's.
	self string

	// The networks of the container that the gateway runs in, if it runs in one
	// of this engine's containers.
	networks map[string]bool

	// How the gateway reaches what listens on the engine's host: host-networked
	// containers and published ports.
	hostAddress string
}

// origin is what the gateway's process can find out about where it runs. It
// does not change while the process lives.
type origin struct {
	// The ID of the container that the gateway runs in, or the 12 characters with
	// which it begins. Empty: unknown, or none.
	containerID string
	// Whether the gateway runs in a container at all.
	contained bool
	// Whether the bridge of an engine is among the gateway's own interfaces.
	// Asked anew each time: an engine makes it when it starts. nil: no.
	bridged func() bool
}

// sharesHost reports whether what listens on the engine's host can be reached on
// the loopback interface, if the engine is on this machine and does not know our
// container.
func (me origin) sharesHost() bool {
	// A container with a bridge is host-networked, runs an engine of its own, or is
	// a machine made from an image of one.
	return !me.contained || (me.bridged != nil && me.bridged())
}

// locate finds the gateway's own container among those of an engine, and from
// it how to reach the others. remoteHost is the engine's host if it is reached
// over the network.
func locate(me origin, own *container, remoteHost string) site {
	switch {
	case own != nil && own.hostNetworked():
		return site{hostAddress: "127.0.0.1"}
	case own != nil:
		at := site{networks: make(map[string]bool, len(own.networks))}
		for _, n := range own.networks {
			at.networks[n.name] = true
			at.hostAddress = cmp.Or(at.hostAddress, n.gateway)
		}
		for _, n := range own.networks {
			at.hostAddress = cmp.Or(at.hostAddress, n.gateway6)
		}
		at.hostAddress = cmp.Or(at.hostAddress, dockerHostName)
		return at
	case remoteHost != "":
		return site{hostAddress: remoteHost}
	case me.sharesHost():
		return site{hostAddress: "127.0.0.1"}
	default:
		return site{hostAddress: dockerHostName}
	}
}

// dockerHostName is what containers may call their host where they are told of
// no gateway.
const dockerHostName = "host.docker.internal"

// findOrigin looks at the files by which a process can tell that it runs in a
// container, and in which.
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
		// Without the mounts, the host's name is the ID unless somebody chose another.
		if name, err := os.Hostname(); err == nil && len(name) == 12 && isHex(name) {
			me.containerID = name
		}
	}
	me.contained = me.contained || me.containerID != ""
	return me
}

// hasBridge looks for the interfaces that Docker and Podman make on their hosts.
func hasBridge() bool {
	for _, name := range []string{"docker0", "podman0", "cni-podman0"} {
		if _, err := net.InterfaceByName(name); err == nil {
			return true
		}
	}
	return false
}

// ownID finds a container's ID in its mounts (proc(5), "mountinfo"): engines
// mount /etc/hostname and its like from a folder named for the container. On a
// host, folders of that name are mounted elsewhere and say nothing about us.
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
