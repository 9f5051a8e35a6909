package integration

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"syscall"
	"testing"

	"github.com/rgate/rgate/internal/testkit"
)

// remoteEngine makes the machine's engine available as if it ran on another machine: on
// port 2375 of the returned address, in a network namespace that a link connects with the
// test's.
func remoteEngine(t *testing.T) (address string) {
	t.Helper()
	r := newRelay(t)
	testkit.RequireProgram(t, "ip")
	if os.Geteuid() != 0 {
		t.Skip("only root can make a network namespace")
	}
	// The link's network is in the range for tests between networks (RFC 2544).
	number := os.Getpid() % 16384
	near, far := fmt.Sprintf("198.19.%d.%d", number>>6, number<<2&255|1), fmt.Sprintf("198.19.%d.%d", number>>6, number<<2&255|2)
	inside, outside := "rgate-in"+strconv.Itoa(number), "rgate-out"+strconv.Itoa(number)
	listener, errs := make(chan net.Listener, 1), make(chan error, 1)
	go func() {
		runtime.LockOSThread() // the thread ends with the goroutine
		err := syscall.Unshare(syscall.CLONE_NEWNET)
		for _, args := range [][]string{
			{"link", "add", inside, "type", "veth", "peer", "name", outside, "netns", strconv.Itoa(os.Getpid())},
			{"addr", "add", far + "/30", "dev", inside},
			{"link", "set", inside, "up"},
		} {
			if err == nil {
				var output []byte
				if output, err = exec.Command("ip", args...).CombinedOutput(); err != nil {
					err = fmt.Errorf("ip %v: %w: %s", args, err, output)
				}
			}
		}
		if err != nil {
			errs <- err
			return
		}
		l, err := net.Listen("tcp", net.JoinHostPort(far, "2375"))
		if err != nil {
			errs <- err
			return
		}
		listener <- l
	}()
	var l net.Listener
	select {
	case l = <-listener:
	case err := <-errs:
		t.Skipf("cannot make a network namespace: %v", err)
	}
	for _, args := range [][]string{{"addr", "add", near + "/30", "dev", outside}, {"link", "set", outside, "up"}} {
		output, err := exec.Command("ip", args...).CombinedOutput()
		must(t, string(output), err)
	}
	r.serve(l)
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
