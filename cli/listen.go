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
)

func init() {
	caddy.RegisterNetwork(lastingNetwork, listenLasting)
}

// lastingNetwork is TCP whose sockets outlive a reload: `rgate/:8080`.
//
// On plain TCP, Caddy gives every configuration a socket of its own at the same
// address (SO_REUSEPORT). When that of the old one is closed, the kernel resets the
// connections that it has established and nobody has accepted yet. And a server
// that shuts down drops connections whose first request has not come yet. Under
// load, either hits somebody every few reloads. Here all configurations share one
// socket, and the newest gets all new connections, once they have something to say
// (on Linux): when an old one is shut down, it is waiting for no first request.
const lastingNetwork = "rgate"

var lasting = struct {
	sync.Mutex
	sockets map[string]*lastingSocket // by address. Guarded by Mutex.
}{sockets: make(map[string]*lastingSocket)}

// lastingSocket is open as long as somebody listens on it.
type lastingSocket struct {
	address   string
	socket    net.Listener
	listeners []*lastingListener // the newest last. Guarded by lasting.Mutex.
	changed   chan struct{}      // closed when listeners changes. Guarded by lasting.Mutex.
}

// lastingListener is one configuration's hold on a socket.
type lastingListener struct {
	of       *lastingSocket
	accepted chan accepted
	closed   chan struct{}
}

type accepted struct {
	conn net.Conn
	err  error
}

// listenLasting implements caddy.ListenerFunc.
func listenLasting(ctx context.Context, _, host, ports string, offset uint, config net.ListenConfig) (any, error) {
	first, _, _ := strings.Cut(ports, "-")
	port, err := strconv.ParseUint(first, 10, 16)
	if err != nil {
		return nil, fmt.Errorf("reading port %q: %w", ports, err)
	}
	address := net.JoinHostPort(host, strconv.FormatUint(port+uint64(offset), 10))

	lasting.Lock()
	defer lasting.Unlock()
	s := lasting.sockets[address]
	if s == nil {
		config.Control = alsoLasting(config.Control)
		socket, err := config.Listen(ctx, "tcp", address)
		if err != nil {
			return nil, err
		}
		s = &lastingSocket{address: address, socket: socket, changed: make(chan struct{})}
		lasting.sockets[address] = s
		go s.accept()
	}
	l := &lastingListener{of: s, accepted: make(chan accepted), closed: make(chan struct{})}
	s.change(append(s.listeners, l))
	return l, nil
}

// change replaces the listeners. The caller holds lasting.Mutex.
func (s *lastingSocket) change(listeners []*lastingListener) {
	s.listeners = listeners
	close(s.changed)
	s.changed = make(chan struct{})
}

// accept gives connections to the newest listener until the socket is closed.
func (s *lastingSocket) accept() {
	for {
		conn, err := s.socket.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		for !s.deliver(accepted{conn, err}) {
		}
	}
}

// deliver tries to give something to the newest listener; it returns false if that
// is another one meanwhile.
func (s *lastingSocket) deliver(a accepted) (done bool) {
	lasting.Lock()
	changed := s.changed
	var to chan accepted
	if n := len(s.listeners); n > 0 {
		to = s.listeners[n-1].accepted
	}
	lasting.Unlock()
	if to == nil { // the last one was closed
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
func (l *lastingListener) Accept() (net.Conn, error) {
	select {
	case a := <-l.accepted:
		return a.conn, a.err
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

// Addr implements net.Listener.
func (l *lastingListener) Addr() net.Addr { return l.of.socket.Addr() }

// Close ends this listener, and the socket with the last one. If it was the newest,
// because its configuration did not come up, connections go to the one before it.
func (l *lastingListener) Close() error {
	lasting.Lock()
	defer lasting.Unlock()
	i := slices.Index(l.of.listeners, l)
	if i < 0 {
		return net.ErrClosed
	}
	close(l.closed)
	l.of.change(slices.Delete(slices.Clone(l.of.listeners), i, i+1))
	if len(l.of.listeners) > 0 {
		return nil
	}
	delete(lasting.sockets, l.of.address)
	return l.of.socket.Close()
}
