package integration

import (
	"io"
	"net"
	"strings"
	"time"

	"github.com/rgate/rgate/internal/testkit"
)

// relayEnv makes the test binary a relay: its value is a TCP address to listen on and the
// path of a socket, separated by a space.
const relayEnv = "RGATE_TEST_RELAY"

// runRelay relays connections until the process is killed.
func runRelay(addresses string) {
	address, socket, _ := strings.Cut(addresses, " ")
	listener, err := net.Listen("tcp", address)
	for begun := time.Now(); err != nil && time.Since(begun) < testkit.Patience; listener, err = net.Listen("tcp", address) {
		time.Sleep(10 * time.Millisecond) // the address has not been added yet
	}
	if err != nil {
		return
	}
	for {
		from, err := listener.Accept()
		if err != nil {
			return
		}
		go func() {
			defer from.Close()
			to, err := net.Dial("unix", socket)
			if err != nil {
				return
			}
			defer to.Close()
			go func() {
				_, _ = io.Copy(from, to)
				_ = from.Close()
			}()
			_, _ = io.Copy(to, from)
		}()
	}
}
