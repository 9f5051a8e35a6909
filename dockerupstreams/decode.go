package dockerupstreams

import (
	"encoding/json"
	"fmt"
	"io"
)

// summary is the part that we need of what an engine says about a container in
// an answer to GET /containers/json.
type summary struct {
	ID     string `json:"Id"`
	Names  []string
	Labels map[string]string
	State  string
	Status string
	Health *struct{ Status string } // since API 1.52

	HostConfig      struct{ NetworkMode string }
	NetworkSettings struct {
		Networks map[string]*struct {
			IPAddress         string
			GlobalIPv6Address string
			Gateway           string
			IPv6Gateway       string
		}
	}
	Ports []struct {
		IP          string
		PrivatePort uint16
		PublicPort  uint16
		Type        string
	}
}

// decodeList reads a list of containers as it comes in.
func decodeList(r io.Reader) ([]*container, error) {
	in := json.NewDecoder(r)
	if open, err := in.Token(); err != nil {
		return nil, err
	} else if open == nil { // null, which is how some say "none"
		return nil, nil
	} else if open != json.Delim('[') {
		return nil, fmt.Errorf("it begins with %v and is not a list", open)
	}
	var list []*container
	for in.More() {
		var s summary
		if err := in.Decode(&s); err != nil {
			return nil, err
		}
		if s.ID == "" {
			return nil, fmt.Errorf("container %d of it has no ID", len(list)+1)
		}
		list = append(list, s.container())
	}
	_, err := in.Token() // the closing bracket: without it, the answer was cut
	return list, err
}

func (s *summary) container() *container {
	c := &container{
		id:          s.ID,
		name:        parseName(s.Names),
		labels:      s.Labels,
		state:       s.State,
		networkMode: s.HostConfig.NetworkMode,
	}
	word := ""
	if s.Health != nil {
		word = s.Health.Status
	}
	c.health = parseHealth(word, s.Status)
	if c.name == "" {
		c.name = s.ID[:min(12, len(s.ID))]
	}
	for name, n := range s.NetworkSettings.Networks {
		if n == nil {
			continue
		}
		c.networks = append(c.networks, network{
			name: name, ipv4: n.IPAddress, ipv6: n.GlobalIPv6Address,
			gateway: n.Gateway, gateway6: n.IPv6Gateway,
		})
	}
	sortNetworks(c.networks)
	for _, p := range s.Ports {
		if p.Type == "tcp" {
			c.ports = append(c.ports, port{private: p.PrivatePort, public: p.PublicPort, ip: p.IP})
		}
	}
	sortPorts(c.ports)
	return c
}
