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
	// The ID of the gateway's container. Empty: it runs in none of this engine's
	// containers.
	self string

	// The networks of the gateway's container, if it runs in one of this engine's.
	networks map[string]bool

	// The host at which the gateway reaches host-networked containers and published
	// ports.
	hostAddress string
}

// origin is what the gateway's process can detect about where it runs. It does not change
// while the process lives.
type origin struct {
	// The ID of the gateway's container, or its first 12 characters. Empty: unknown, or
	// none.
	containerID string
	// Whether the gateway runs in a container.
	contained bool
	// Whether the bridge of an engine is among the gateway's interfaces. Called each time,
	// as an engine creates it when it starts. nil: no.
	bridged func() bool
}

// sharesHost reports whether the engine's host can be reached on the loopback interface,
// if the engine is on this machine and does not know the gateway's container.
func (me origin) sharesHost() bool {
	// A container with a bridge is host-networked, runs an engine of its own, or is a
	// machine made from an image of one.
	return !me.contained || (me.bridged != nil && me.bridged())
}

// locate finds the gateway's container among those of an engine, and from it how to reach
// the others. remoteHost is the host of an engine that is reached over the network.
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

// dockerHostName is the name of the host in containers without a known gateway address.
const dockerHostName = "host.docker.internal"

// findOrigin reads the files by which a process can detect that it runs in a container,
// and in which.
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
		// Without the mounts, the host's name is the ID unless it was configured.
		if name, err := os.Hostname(); err == nil && len(name) == 12 && isHex(name) {
			me.containerID = name
		}
	}
	me.contained = me.contained || me.containerID != ""
	return me
}

// hasBridge looks for the interfaces that Docker and Podman create on their hosts.
func hasBridge() bool {
	for _, name := range []string{"docker0", "podman0", "cni-podman0"} {
		if _, err := net.InterfaceByName(name); err == nil {
			return true
		}
	}
	return false
}

// ownID returns a container's ID from its mounts (proc(5), "mountinfo"): engines mount
// /etc/hostname and similar files from a folder named after the container. On a host,
// folders of that name are mounted elsewhere, and are ignored.
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
