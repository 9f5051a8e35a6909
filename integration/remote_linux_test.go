package integration

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/rgate/rgate/internal/testkit"
)

// remoteEngine makes the machine's engine available as if it ran on another machine: on
// port 2375 of the returned address. A relay listens there, in a network namespace that a
// link connects with the namespace of the test.
func remoteEngine(t *testing.T) (address string) {
	t.Helper()
	requireEngine(t)
	testkit.RequireProgram(t, "ip")
	testkit.RequireProgram(t, "nsenter")
	socket, ok := strings.CutPrefix(engine.DaemonHost(), "unix://")
	if !ok || os.Geteuid() != 0 {
		t.Skip("only root can make a network namespace, and the relay leads to local sockets only")
	}
	// The network of the link is in a range for tests (RFC 2544).
	number := os.Getpid() % 16384
	network := fmt.Sprintf("198.19.%d.", number>>6)
	near, far := network+strconv.Itoa(number<<2&255|1), network+strconv.Itoa(number<<2&255|2)
	inside, outside := "rgate-in"+strconv.Itoa(number), "rgate-out"+strconv.Itoa(number)

	relay := exec.Command(os.Args[0])
	relay.Env = append(os.Environ(), relayEnv+"="+net.JoinHostPort(far, "2375")+" "+socket)
	relay.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	must(t, "starting the relay", relay.Start())
	t.Cleanup(func() {
		_ = relay.Process.Kill()
		_ = relay.Wait()
	})
	pid := strconv.Itoa(relay.Process.Pid)
	for _, command := range [][]string{
		{"ip", "link", "add", outside, "type", "veth", "peer", "name", inside, "netns", pid},
		{"ip", "addr", "add", near + "/30", "dev", outside},
		{"ip", "link", "set", outside, "up"},
		{"nsenter", "-t", pid, "-n", "ip", "addr", "add", far + "/30", "dev", inside},
		{"nsenter", "-t", pid, "-n", "ip", "link", "set", inside, "up"},
	} {
		output, err := exec.Command(command[0], command[1:]...).CombinedOutput()
		must(t, fmt.Sprintf("%v: %s", command, output), err)
	}
	return far
}

// TestE4AddressesOfARemoteEngineBelongToStrangers checks that containers of an engine on
// another machine are dialed only where the configuration says that they can be reached.
func TestE4AddressesOfARemoteEngineBelongToStrangers(t *testing.T) {
	t.Parallel()
	address := remoteEngine(t)
	web := startContainer(t, spec{})
	g := startGateway(t, "docker: tcp://"+address+oneBackend) // port 2375 by default
	g.awaitReason(t, web.name, `network "bridge" is on another machine, and its address may belong to another machine here`)
	if response := g.get(t, "/"); response.status != http.StatusServiceUnavailable {
		t.Errorf("status is %d, want 503", response.status)
	}
	routed := startGateway(t, "docker: {host: \"tcp://"+address+"\", routed: [bridge]}"+oneBackend)
	routed.awaitStatus(t, "/", http.StatusOK)
}
