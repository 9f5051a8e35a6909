package dockerupstreams

import (
	"cmp"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// decodeList decodes the response of GET /containers/json as a stream, and keeps only
// the fields of container.
func decodeList(r io.Reader) ([]*container, error) {
	in := newValues(r)
	switch open, err := in.peek(); {
	case err != nil:
		return nil, unexpected(err)
	case open == 'n': // some engines send null for an empty list
		return nil, nil
	case open != '[':
		return nil, fmt.Errorf("invalid character %q: must be the beginning of an array", open)
	}
	in.at++
	var list []*container
	for {
		c, err := in.peek()
		if err != nil {
			return nil, unexpected(err)
		}
		switch {
		case c == ']': // a list without it is truncated
			return list, nil
		case c == ',' && len(list) > 0:
			in.at++
		}
		text, err := in.next()
		if err != nil {
			return nil, err
		}
		item, err := decodeContainer(text)
		if err != nil {
			return nil, fmt.Errorf("container %d: %w", len(list)+1, err)
		}
		list = append(list, item)
	}
}

func unexpected(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// decodeContainer decodes an item of a list of containers.
func decodeContainer(text []byte) (*container, error) {
	c := new(container)
	s := scanner{text: text}
	var status, word string
	s.object(func(name []byte) {
		switch string(name) {
		case "Id":
			c.id = s.string()
		case "Names":
			var names []string
			s.array(func() { names = append(names, s.string()) })
			c.name = parseName(names)
		case "Labels":
			c.labels = make(map[string]string)
			s.object(func(name []byte) { c.labels[string(name)] = s.string() })
		case "State":
			c.state = s.string()
		case "Status":
			status = s.string()
		case "Health": // since API 1.52
			s.object(func(name []byte) { s.only(name, "Status", &word) })
		case "HostConfig":
			s.object(func(name []byte) { s.only(name, "NetworkMode", &c.networkMode) })
		case "NetworkSettings":
			s.object(func(name []byte) {
				if string(name) != "Networks" {
					s.skip()
					return
				}
				s.object(func(name []byte) { c.networks = append(c.networks, decodeNetwork(&s, string(name))) })
			})
		case "Ports":
			s.array(func() { decodePort(&s, c) })
		default:
			s.skip()
		}
	})
	if s.err != nil {
		return nil, s.err
	}
	if c.id == "" {
		return nil, fmt.Errorf("missing ID")
	}
	if c.name == "" {
		c.name = c.id[:min(12, len(c.id))]
	}
	c.health = parseHealth(word, status)
	if c.state != "running" {
		c.status = status
	}
	c.networkOwner, _ = strings.CutPrefix(c.networkMode, "container:")
	if c.networkOwner == c.networkMode {
		c.networkOwner = ""
	}
	sortNetworks(c.networks)
	sortPorts(c.ports)
	return c, nil
}

// only reads the member into where if it has the wanted name, else skips it.
func (s *scanner) only(name []byte, wanted string, where *string) {
	if string(name) == wanted {
		*where = s.string()
		return
	}
	s.skip()
}

func decodeNetwork(s *scanner, called string) network {
	n := network{name: called}
	s.object(func(name []byte) {
		switch string(name) {
		case "IPAddress":
			n.ipv4 = s.string()
		case "GlobalIPv6Address":
			n.ipv6 = s.string()
		case "Gateway":
			n.gateway = s.string()
		case "IPv6Gateway":
			n.gateway6 = s.string()
		default:
			s.skip()
		}
	})
	return n
}

func decodePort(s *scanner, c *container) {
	var p port
	var kind string
	s.object(func(name []byte) {
		switch string(name) {
		case "IP":
			p.ip = s.string()
		case "PrivatePort":
			p.private = uint16(s.number())
		case "PublicPort":
			p.public = uint16(s.number())
		case "Type":
			kind = s.string()
		default:
			s.skip()
		}
	})
	if kind == "tcp" {
		c.ports = append(c.ports, p)
	}
}

// The events to subscribe to. Every run of a health check emits three other events,
// which the filter excludes.
var (
	containerEvents = map[string]action{
		"start":         actionStart,
		"kill":          actionKill,
		"die":           actionEnd,
		"died":          actionEnd, // Podman
		"destroy":       actionEnd,
		"remove":        actionEnd, // Podman
		"pause":         actionPause,
		"unpause":       actionUnpause,
		"rename":        actionOther,
		"health_status": actionOther, // the engine's filter compares the part before the colon
	}
	networkEvents = []string{"connect", "disconnect"}
)

// generatedName matches the names of containers that were created without a name, such as
// eager_curie or eager_curie2. A classic docker build creates the container of a step
// without a name, and from the ID of the previous step's image.
var generatedName = regexp.MustCompile(`^[a-z]+_[a-z]+[0-9]?$`)

// decodeEvent decodes an event and reports whether it matters.
func decodeEvent(text []byte) (e event, matters bool, err error) {
	s := scanner{text: text}
	var kind, what, signal, attached, image, called string
	var seconds, nanos int64
	s.object(func(name []byte) {
		switch string(name) {
		case "Type":
			kind = s.string()
		case "Action":
			what = s.string()
		case "time":
			seconds = s.number()
		case "timeNano":
			nanos = s.number()
		case "Actor":
			s.object(func(name []byte) {
				if string(name) != "Attributes" {
					s.only(name, "ID", &e.id)
					return
				}
				s.object(func(attribute []byte) {
					switch string(attribute) {
					case "signal":
						signal = s.string()
					case "container":
						attached = s.string()
					case "image":
						image = s.string()
					case "name":
						called = s.string()
					default:
						s.skip()
					}
				})
			})
		default:
			s.skip()
		}
	})
	if s.err != nil {
		return e, false, s.err
	}
	e.at = time.Unix(0, nanos)
	if nanos == 0 {
		e.at = time.Unix(seconds, 0)
	}
	switch kind {
	case "container":
		word, state, _ := strings.Cut(what, ":")
		e.action, matters = containerEvents[word]
		if strings.TrimSpace(state) == "healthy" { // not every engine adds the state
			e.action = actionHealthy
		}
		number, _ := strconv.Atoi(signal)
		e.signal = Signal(number)
		e.buildStep = e.action == actionStart && strings.HasPrefix(image, "sha256:") && generatedName.MatchString(called)
	case "network":
		// Podman sends the ID of the container in place of the ID of the network.
		e.id, e.action, matters = cmp.Or(attached, e.id), actionNetwork, true
	}
	return e, matters && e.id != "", nil
}
