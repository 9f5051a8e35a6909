package cli

import (
	"context"
	"fmt"
	"net"
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
// connections that it has established and nobody has accepted yet, which under
// load are some at every reload. Here all configurations accept from one socket,
// and whatever is in its queue is left to the next one.
const lastingNetwork = "rgate"

var lasting struct {
	sync.Mutex
	sockets map[string]*lastingSocket // by address. Guarded by Mutex.
}

// lastingSocket is open as long as somebody listens on it.
type lastingSocket struct {
	*net.TCPListener
	listeners int // Guarded by lasting.Mutex.
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
	socket := lasting.sockets[address]
	if socket == nil {
		l, err := config.Listen(ctx, "tcp", address)
		if err != nil {
			return nil, err
		}
		socket = &lastingSocket{TCPListener: l.(*net.TCPListener)}
	}
	copied, err := duplicate(socket.TCPListener)
	if err != nil {
		if socket.listeners == 0 {
			_ = socket.Close()
		}
		return nil, fmt.Errorf("sharing the socket at %s: %w", address, err)
	}
	if lasting.sockets == nil {
		lasting.sockets = make(map[string]*lastingSocket)
	}
	lasting.sockets[address] = socket
	socket.listeners++
	return &lastingListener{Listener: copied, address: address, socket: socket}, nil
}

// duplicate makes a listener of its own on the same socket.
func duplicate(l *net.TCPListener) (net.Listener, error) {
	file, err := l.File()
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return net.FileListener(file)
}

// lastingListener is one configuration's hold on a socket.
type lastingListener struct {
	net.Listener
	address string
	socket  *lastingSocket
	close   sync.Once
	err     error
}

// Close ends this listener, and the socket with the last one.
func (l *lastingListener) Close() error {
	l.close.Do(func() {
		l.err = l.Listener.Close()
		lasting.Lock()
		defer lasting.Unlock()
		if l.socket.listeners--; l.socket.listeners == 0 {
			delete(lasting.sockets, l.address)
			_ = l.socket.Close()
		}
	})
	return l.err
}
