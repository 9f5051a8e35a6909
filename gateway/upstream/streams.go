package upstream

import (
	"sync"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"
)

// streams counts the upgraded connections of a service, such as WebSockets.
type streams struct {
	closer   *reverseproxy.Handler // closes the proxy's upgraded connections in Cleanup
	open     int                   // Guarded by replaced.Mutex.
	released bool                  // the configuration was replaced. Guarded by replaced.Mutex.
}

// replaced holds the streams of replaced configurations while they have open
// connections.
var replaced = struct {
	sync.Mutex
	streams map[*streams]struct{}
	open    int // number of upgraded connections of all configurations
}{streams: make(map[*streams]struct{})}

// OpenStreams returns the number of upgraded connections of all configurations.
func OpenStreams() int {
	replaced.Lock()
	defer replaced.Unlock()
	return replaced.open
}

// of sets the proxy of the service. It copies the handler, which shares its connections
// with the copy. Cleanup of a copy without upstreams and without a delay only closes the
// connections.
func (s *streams) of(proxy *reverseproxy.Handler) {
	closer := *proxy
	closer.Upstreams, closer.StreamCloseDelay = nil, 0
	s.closer = &closer
}

// enter counts an upgraded connection.
func (s *streams) enter(state *Request) {
	state.upgraded = true
	replaced.Lock()
	defer replaced.Unlock()
	s.open++
	replaced.open++
	s.update()
}

// leave ends the count of a request's connection, if it was upgraded.
func (s *streams) leave(state *Request) {
	if !state.upgraded {
		return
	}
	replaced.Lock()
	defer replaced.Unlock()
	s.open--
	replaced.open--
	s.update()
}

// release marks the configuration as replaced. At the end of the process, it closes the
// connections, because the proxy would wait for its delay.
func (s *streams) release() {
	if s.closer == nil {
		return
	}
	if caddy.Exiting() {
		_ = s.closer.Cleanup() // clients may have left
		return
	}
	replaced.Lock()
	defer replaced.Unlock()
	s.released = true
	s.update()
}

// update adds the streams to replaced, or removes them. The caller holds replaced.Mutex.
func (s *streams) update() {
	if s.released && s.open > 0 {
		replaced.streams[s] = struct{}{}
	} else {
		delete(replaced.streams, s)
	}
}

// CloseReplacedStreams closes the upgraded connections of replaced configurations. It
// returns their number.
func CloseReplacedStreams() (closed int) {
	replaced.Lock()
	var all []*streams
	for s := range replaced.streams {
		all = append(all, s)
		closed += s.open
	}
	replaced.Unlock()
	for _, s := range all {
		_ = s.closer.Cleanup() // clients may have left
	}
	return closed
}
