package dockerupstreams

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
)

// Rejection is a container that has a selector's labels but receives no requests, and the
// reason.
type Rejection struct {
	// The container's name, without the engine's leading slash.
	Container string `json:"container"`
	// The container's ID.
	ID string `json:"id"`
	// The error, and its remedy.
	Reason string `json:"reason"`
	// The invalid label and its value; empty if no label is.
	Label string `json:"label,omitempty"`
	Value string `json:"value,omitempty"`
	// Whether the reason passes by itself, such as a health check that has not passed
	// yet.
	Temporary bool `json:"temporary,omitempty"`
}

// resolve returns the target for requests to c by sel, or the rejection. It does not
// check the labels of sel.
func resolve(sel *Selector, c *container, at *site) (Target, *Rejection) {
	reject := func(err error) *Rejection {
		r := &Rejection{Container: c.name, ID: c.id, Reason: err.Error()}
		if bad := (*labelError)(nil); errors.As(err, &bad) {
			r.Label, r.Value = bad.label, clip(bad.value)
		}
		return r
	}

	if at.self != "" && c.id == at.self {
		return Target{}, reject(errOwnContainer)
	}
	// Labels are checked first: they do not change while a container lives, so the reason
	// does not either.
	how, err := steer(sel, c.labels)
	if err != nil {
		return Target{}, reject(err)
	}
	if reason := unavailable(sel, c); reason != "" {
		return Target{}, &Rejection{Container: c.name, ID: c.id, Reason: reason, Temporary: true}
	}
	host, port, err := locateContainer(sel, how, c, at)
	if err != nil {
		return Target{}, reject(err)
	}
	return Target{
		Dial:        net.JoinHostPort(host, strconv.Itoa(port)),
		Container:   c.name,
		ID:          c.id,
		Scheme:      how.scheme,
		Weight:      how.weight,
		MaxRequests: how.maxRequests,
	}, nil
}

var errOwnContainer = errors.New("the container is the one that the gateway runs in: remove its labels, or set dial for another process in it")

// unavailable returns why a container cannot receive requests now, or "".
func unavailable(sel *Selector, c *container) string {
	if c.state != "running" {
		return "the container is " + c.state
	}
	if sel.Health == healthAny {
		return ""
	}
	switch c.health {
	case healthStarting:
		return "its health check has not passed yet: set health to any to ignore it"
	case healthFailing:
		return "its health check fails: set health to any to ignore it"
	default:
		return ""
	}
}

// locateContainer returns the host and the port to dial.
func locateContainer(sel *Selector, how steering, c *container, at *site) (host string, number int, err error) {
	number, err = containerPort(sel, how, c)
	if err != nil {
		return "", 0, err
	}
	switch {
	case c.hostNetworked():
		host = at.hostAddress
	case sel.HostPort:
		if host, number, err = publishedPort(c, number, at); err != nil {
			return "", 0, err
		}
	case how.address == "":
		if host, err = networkAddress(how, c, at); err != nil {
			return "", 0, err
		}
	}
	if how.address != "" {
		host = how.address
	}
	return host, number, nil
}

// containerPort returns the port inside the container: the configured one, else the only
// one. It does not guess among several: the lowest of 80 and 6379 would be right, that of
// 3306 and 8080 wrong.
func containerPort(sel *Selector, how steering, c *container) (int, error) {
	if how.port != 0 {
		return how.port, nil
	}
	var found []string
	last := 0
	for _, p := range c.ports {
		if (sel.HostPort && p.public == 0) || int(p.private) == last {
			continue
		}
		last = int(p.private)
		found = append(found, strconv.Itoa(last))
	}
	verb := "exposes"
	if sel.HostPort {
		verb = "publishes"
	}
	switch len(found) {
	case 1:
		return last, nil
	case 0:
		if c.hostNetworked() {
			return 0, fmt.Errorf("the container uses its host's network and has no configured port: set its label %s, or the option port", labelPort)
		}
		return 0, fmt.Errorf("the container %s no TCP port: set its label %s, or the option port", verb, labelPort)
	default:
		return 0, fmt.Errorf("the container %s several TCP ports (%s): set its label %s to one of them, or the option port",
			verb, strings.Join(found, ", "), labelPort)
	}
}

// publishedPort returns the address at which the engine publishes a container's port.
func publishedPort(c *container, number int, at *site) (host string, public int, err error) {
	i := slices.IndexFunc(c.ports, func(p port) bool { return int(p.private) == number && p.public != 0 })
	if i < 0 {
		return "", 0, fmt.Errorf("the container's port %d is not published: publish it (docker run -p %d), or remove the option host_port",
			number, number)
	}
	found := c.ports[i]
	ip := net.ParseIP(found.ip)
	switch {
	case ip == nil || ip.IsUnspecified():
		return at.hostAddress, int(found.public), nil
	case !ip.IsLoopback() || at.hostAddress == "127.0.0.1":
		return found.ip, int(found.public), nil
	case at.hostAddress == dockerHostName:
		return dockerHostName, int(found.public), nil // there, the name resolves to the loopback interface
	default:
		return "", 0, fmt.Errorf("the container's port %d is only published on %s, which only the engine's host can reach: publish it on all addresses (docker run -p %d)",
			number, found.ip, number)
	}
}

// networkAddress returns the container's address in the network through which it is reached.
func networkAddress(how steering, c *container, at *site) (string, error) {
	if other, ok := strings.CutPrefix(c.networkMode, "container:"); ok && len(c.networks) == 0 {
		return "", fmt.Errorf("the container uses the network of container %.12s: set its label %s to that one's address", other, labelAddress)
	}
	chosen := network{}
	switch {
	case how.network != "":
		found, ok := c.network(how.network)
		if !ok {
			return "", fmt.Errorf("the container is not attached to network %q (it is to %s): attach it, or change the option network or its label %s",
				how.network, attached(c), labelNetwork)
		}
		chosen = found
		if chosen.address() == "" {
			return "", fmt.Errorf("the container has no address in network %q: choose another with the option network or its label %s",
				chosen.name, labelNetwork)
		}
	default:
		chosen = firstNetwork(c, at)
	}
	if chosen.address() == "" {
		return "", fmt.Errorf("the container has no address in any network: attach it to one, or set its label %s", labelAddress)
	}
	return chosen.address(), nil
}

// firstNetwork returns the first network by name in which the container has an address,
// preferably one of the gateway's networks.
func firstNetwork(c *container, at *site) network {
	var first network
	for _, n := range c.networks {
		// The ingress network of a swarm only carries published ports: tasks cannot be
		// reached through it directly.
		if n.address() == "" || n.name == "ingress" {
			continue
		}
		if at.networks[n.name] {
			return n
		}
		if first.name == "" {
			first = n
		}
	}
	return first
}

// attached joins the names of a container's networks for a message.
func attached(c *container) string {
	if len(c.networks) == 0 {
		return "none"
	}
	names := make([]string, len(c.networks))
	for i, n := range c.networks {
		names[i] = n.name
	}
	return strings.Join(names, ", ")
}
