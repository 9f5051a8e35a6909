package cli

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/caddyserver/caddy/v2"

	"github.com/rgate/rgate/internal/shutdown"
)

func init() {
	caddy.RegisterNetwork(sharedNetwork, listenShared)
}

// sharedNetwork is the name of a Caddy network: TCP with sockets that are shared by all
// configurations, such as `rgate/:8080`.
//
// On plain TCP, Caddy opens a separate socket per configuration at the same address
// (SO_REUSEPORT). When the old socket is closed, the kernel resets connections that
// were not accepted yet. A server that shuts down also closes connections that have not
// sent a request. Under load, reloads therefore lose requests. A shared socket stays
// open, and the newest configuration accepts all new connections. On Linux, connections
// are accepted only after they have sent data, so that a server that shuts down has no
// connection without a request.
const sharedNetwork = shutdown.SharedNetwork

var shared = struct {
	sync.Mutex
	sockets map[string]*sharedSocket // open sockets by address. Guarded by Mutex.
}{sockets: make(map[string]*sharedSocket)}

// sharedSocket is a socket that is open while it has listeners.
type sharedSocket struct {
	address   string
	socket    net.Listener
	listeners []*sharedListener // the newest is last. Guarded by shared.Mutex.
	changed   chan struct{}     // closed when listeners changes. Guarded by shared.Mutex.
}

// sharedListener is a configuration's listener on a shared socket.
type sharedListener struct {
	of       *sharedSocket
	accepted chan accepted
	closed   chan struct{}
}

type accepted struct {
	conn net.Conn
	err  error
}

// listenShared implements caddy.ListenerFunc.
func listenShared(ctx context.Context, _, host, ports string, offset uint, config net.ListenConfig) (any, error) {
	first, _, _ := strings.Cut(ports, "-")
	port, err := strconv.ParseUint(first, 10, 16)
	if err != nil {
		return nil, fmt.Errorf("invalid port %q: %w", ports, err)
	}
	address := net.JoinHostPort(host, strconv.FormatUint(port+uint64(offset), 10))

	shared.Lock()
	defer shared.Unlock()
	s := shared.sockets[address]
	if s == nil {
		config.Control = shareSocket(config.Control)
		socket, err := config.Listen(ctx, "tcp", address)
		if err != nil {
			return nil, err
		}
		s = &sharedSocket{address: address, socket: socket, changed: make(chan struct{})}
		shared.sockets[address] = s
		go s.accept()
	}
	l := &sharedListener{of: s, accepted: make(chan accepted), closed: make(chan struct{})}
	s.change(append(s.listeners, l))
	return l, nil
}

// change replaces the listeners. The caller holds shared.Mutex.
func (s *sharedSocket) change(listeners []*sharedListener) {
	s.listeners = listeners
	close(s.changed)
	s.changed = make(chan struct{})
}

// accept delivers connections to the newest listener until the socket is closed.
func (s *sharedSocket) accept() {
	for {
		conn, err := s.socket.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		for !s.deliver(accepted{conn, err}) {
		}
	}
}

// deliver hands a connection to the newest listener. It returns false if the listeners
// changed before the listener accepted it.
func (s *sharedSocket) deliver(a accepted) (done bool) {
	shared.Lock()
	changed := s.changed
	var to chan accepted
	if n := len(s.listeners); n > 0 {
		to = s.listeners[n-1].accepted
	}
	shared.Unlock()
	if to == nil { // the last listener was closed
		if a.conn != nil {
			_ = a.conn.Close()
		}
		return true
	}
	select {
	case to <- a:
		return true
	case <-changed:
		return false
	}
}

// Accept implements net.Listener.
func (l *sharedListener) Accept() (net.Conn, error) {
	select {
	case a := <-l.accepted:
		return a.conn, a.err
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

// Addr implements net.Listener.
func (l *sharedListener) Addr() net.Addr { return l.of.socket.Addr() }

// Close closes the listener, and the socket if it was the last listener. If the newest
// listener is closed because its configuration failed to start, the previous listener
// receives the connections again.
func (l *sharedListener) Close() error {
	shared.Lock()
	defer shared.Unlock()
	i := slices.Index(l.of.listeners, l)
	if i < 0 {
		return net.ErrClosed
	}
	close(l.closed)
	l.of.change(slices.Delete(slices.Clone(l.of.listeners), i, i+1))
	if len(l.of.listeners) > 0 {
		return nil
	}
	delete(shared.sockets, l.of.address)
	return l.of.socket.Close()
}
