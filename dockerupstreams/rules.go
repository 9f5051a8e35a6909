package dockerupstreams

import (
	"errors"
	"fmt"
	"hash/fnv"
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
	// The reason and the remedy.
	Reason string `json:"reason"`
	// The invalid label and its value. Empty if the reason is not a label.
	Label string `json:"label,omitempty"`
	Value string `json:"value,omitempty"`
	// Whether the rejection is expected to end without a change of the configuration,
	// such as while a health check is starting.
	Temporary bool `json:"temporary,omitempty"`

	// Whether the container is excluded on purpose, such as by its label rgate.enable.
	Intended bool `json:"intended,omitempty"`
}

// resolve returns the target for c, or the rejection. c must match the labels of sel.
// owner is the container whose network c uses, or nil.
func resolve(sel *Selector, c, owner *container, at *site) (Target, *Rejection) {
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
	// Labels are validated first: they are immutable, so the reason remains the same
	// for the lifetime of the container.
	excluded, err := exclusion(sel, c)
	if err != nil {
		return Target{}, reject(err)
	}
	if excluded != "" {
		return Target{}, &Rejection{Container: c.name, ID: c.id, Reason: excluded, Intended: true}
	}
	how, err := parseLabels(sel, c.labels)
	if err != nil {
		return Target{}, reject(err)
	}
	if reason := unavailable(sel, c); reason != "" {
		return Target{}, &Rejection{Container: c.name, ID: c.id, Reason: reason, Temporary: true}
	}
	host, port, err := locateContainer(sel, how, c, owner, at)
	if err != nil {
		return Target{}, reject(err)
	}
	dial := net.JoinHostPort(host, strconv.Itoa(port))
	return Target{
		Dial:        dial,
		Container:   c.name,
		ID:          c.id,
		Scheme:      how.scheme,
		Weight:      how.weight,
		MaxRequests: how.maxRequests,
		Labeled:     how.address != "",
		Pool:        dial + poolDigits(c.id),
	}, nil
}

// exclusion returns the reason why a container with the labels of sel is excluded, or "".
// The label rgate.enable takes precedence.
func exclusion(sel *Selector, c *container) (string, error) {
	switch value, ok := c.labels[labelEnable]; {
	case ok && value == "true":
		return "", nil
	case ok && value == "false":
		return "the label " + labelEnable + " is false", nil
	case ok:
		return "", &labelError{labelEnable, value, "must be true or false"}
	}
	_, named := sel.MatchLabels[labelComposeOneOff]
	switch {
	case c.oneOff() && !named && !sel.includes(includeOneOffs):
		return "the container is a one-off container of docker compose run: set its label " + labelEnable + "=true to include it", nil
	case c.buildStep && !sel.includes(includeBuildSteps):
		return "the container is a step of docker build: set the option include to build_steps to include it", nil
	}
	return "", nil
}

// poolDigits returns a number of 20 digits that differs between containers.
func poolDigits(id string) string {
	hash := fnv.New64a()
	_, _ = hash.Write([]byte(id)) // never fails
	return fmt.Sprintf("%020d", hash.Sum64())
}

var errOwnContainer = errors.New("the container runs this gateway: remove its labels, or set dial to reach another process in the container")

// unavailable returns the reason a container cannot receive requests now, or "".
func unavailable(sel *Selector, c *container) string {
	if c.state != "running" {
		return "the container is " + c.state
	}
	if sel.Health == healthAny {
		return ""
	}
	switch c.health {
	case healthStarting:
		return "the health check of the container has not passed yet: set health to any to ignore health checks"
	case healthFailing:
		return "the health check of the container fails: set health to any to ignore health checks"
	default:
		return ""
	}
}

// locateContainer returns the host and the port to dial.
func locateContainer(sel *Selector, how labelOptions, c, owner *container, at *site) (host string, number int, err error) {
	number, err = containerPort(sel, how, c, at)
	if err != nil {
		return "", 0, err
	}
	attached := c // the container that is attached to the networks
	if c.networkOwner != "" {
		if attached = owner; owner == nil {
			return "", 0, fmt.Errorf("the container uses the network of container %.12s, which does not run: recreate the container", c.networkOwner)
		}
	}
	switch {
	case attached.hostNetworked():
		host = at.hostAddress
	case sel.HostPort:
		host, number, err = publishedPort(attached, number, at)
	case how.address == "":
		host, err = networkAddress(how, attached, at)
	}
	if err != nil || how.address == "" {
		return host, number, err
	}
	if attached != c && !attached.has(how.address) {
		return "", 0, &labelError{labelAddress, how.address, fmt.Sprintf("must be an address of container %s, "+
			"whose network the container uses: remove the label, the address is found without it", attached.name)}
	}
	return how.address, number, nil
}

// containerPort returns the port inside the container: the configured port, or else the
// only exposed port. With several exposed ports it returns an error: no heuristic, such
// as the lowest number, is reliable.
func containerPort(sel *Selector, how labelOptions, c *container, at *site) (int, error) {
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
		if n := at.withoutPorts(c); n != "" && !sel.HostPort {
			return 0, fmt.Errorf("the engine lists no ports of containers in network %q: set its label %s, or the option port", n, labelPort)
		}
		if c.networkOwner != "" {
			return 0, fmt.Errorf("the container uses the network of container %.12s and has no configured port: set its label %s, or the option port", c.networkOwner, labelPort)
		}
		return 0, fmt.Errorf("the container %s no TCP port: set its label %s, or the option port", verb, labelPort)
	default:
		return 0, fmt.Errorf("the container %s several TCP ports (%s): set its label %s to one of them, or the option port",
			verb, strings.Join(found, ", "), labelPort)
	}
}

// publishedPort returns the host and port where the engine publishes a container's
// port.
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
		return dockerHostName, int(found.public), nil // the name resolves to an address that reaches the host's loopback interface
	default:
		return "", 0, fmt.Errorf("the container's port %d is only published on %s, which only the engine's host can reach: publish it on all addresses (docker run -p %d)",
			number, found.ip, number)
	}
}

// networkAddress returns the container's address in the configured network, or in the
// network selected by firstNetwork.
func networkAddress(how labelOptions, c *container, at *site) (string, error) {
	chosen := network{}
	switch {
	case how.network != "":
		found, ok := c.network(how.network)
		if !ok {
			return "", fmt.Errorf("the container is not attached to network %q (attached to %s): attach the container, or change the option network or its label %s",
				how.network, attached(c), labelNetwork)
		}
		chosen = found
		if chosen.address() == "" {
			return "", fmt.Errorf("the container has no address in network %q: choose another network with the option network or the label %s",
				chosen.name, labelNetwork)
		}
	default:
		chosen = firstNetwork(c, at)
	}
	if chosen.address() == "" {
		return "", fmt.Errorf("the container has no address in any network (ingress is ignored): attach the container to another network, or set its label %s", labelAddress)
	}
	if !at.reaches(chosen.name) {
		return "", fmt.Errorf("the container's network %q is on another machine, and its address may belong to another machine here: "+
			"publish the port and set host_port, or add the network to routed of docker endpoint %s", chosen.name, at.engine)
	}
	return chosen.address(), nil
}

// firstNetwork returns the network in which to reach a container. In this order: a
// network that can be reached, a network of the gateway, a bridge network, the first
// network by name.
func firstNetwork(c *container, at *site) network {
	best, lowest := network{}, 0
	for _, n := range c.networks {
		// The ingress network of a swarm only carries published ports: tasks cannot be
		// reached through it directly.
		if n.address() == "" || n.name == "ingress" {
			continue
		}
		if rank := at.rank(n.name); best.name == "" || rank < lowest {
			best, lowest = n, rank
		}
	}
	return best
}

// attached formats the names of a container's networks for an error message.
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
