package integration

import (
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
	r := &relay{engine: socket, conns: make(map[net.Conn]struct{})}
	r.serve(listener)
	r.copiers.Wait()
}
