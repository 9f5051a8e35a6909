package dockerupstreams

import (
	"bufio"
	"cmp"
	"io"
	"os"
	"strings"
)

// site is where the gateway stands, seen from an engine.
type site struct {
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
	case me.contained:
		return site{hostAddress: dockerHostName}
	default:
		return site{hostAddress: "127.0.0.1"}
	}
}

// dockerHostName is what containers may call their host where they are told of
// no gateway.
const dockerHostName = "host.docker.internal"

// findOrigin looks at the files by which a process can tell that it runs in a
// container, and in which.
func findOrigin() origin {
	var me origin
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
