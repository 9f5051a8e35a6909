package upstream

import (
	"net/http"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"
)

// streams counts the upgraded connections of a service, such as WebSockets.
type streams struct {
	closer   *reverseproxy.Handler // closes the proxy's upgraded connections in Cleanup
	open     map[*Request]struct{} // Guarded by replaced.Mutex.
	released bool                  // the configuration was replaced. Guarded by replaced.Mutex.
}

// closeTimeout is the maximum time for which a client that does not read delays the close
// frame of its connection.
const closeTimeout = time.Second

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
	if s.open == nil {
		s.open = make(map[*Request]struct{})
	}
	s.open[state] = struct{}{}
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
	delete(s.open, state)
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
		s.close()
		CloseReplacedStreams()
		return
	}
	replaced.Lock()
	defer replaced.Unlock()
	s.released = true
	s.update()
}

// update adds the streams to replaced, or removes them. The caller holds replaced.Mutex.
func (s *streams) update() {
	if s.released && len(s.open) > 0 {
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
		closed += len(s.open)
	}
	replaced.Unlock()
	for _, s := range all {
		s.close()
	}
	return closed
}

// close closes the connections. Without a deadline, a client that does not read would
// block the close frames of all.
func (s *streams) close() {
	replaced.Lock()
	for state := range s.open {
		_ = http.NewResponseController(&state.writer).SetWriteDeadline(time.Now().Add(closeTimeout)) // not supported by every server
	}
	replaced.Unlock()
	_ = s.closer.Cleanup() // clients may have left
}
