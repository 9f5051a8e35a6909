package dockerupstreams

import (
	"maps"
	"strings"
	"testing"
)

// running returns a container with port 80 at 10.0.0.2, modified by change.
func running(change func(*container)) *container {
	c := &container{
		id: "0123456789abcdef", name: "web-1", state: "running",
		labels:      map[string]string{"app": "web"},
		networkMode: "default",
		networks:    []network{{name: "bridge", ipv4: "10.0.0.2"}},
		ports:       []port{{private: 80}},
	}
	if change != nil {
		change(c)
	}
	return c
}

// labelled returns the container of running with additional labels, given as name,
// value, ….
func labelled(pairs ...string) *container {
	return running(func(c *container) {
		c.labels = maps.Clone(c.labels)
		for i := 0; i < len(pairs); i += 2 {
			c.labels[pairs[i]] = pairs[i+1]
		}
	})
}

func withPorts(ports ...port) *container {
	return running(func(c *container) {
		c.ports = ports
		sortPorts(c.ports)
	})
}

func withNetworks(networks ...network) *container {
	return running(func(c *container) {
		c.networks = networks
		sortNetworks(c.networks)
	})
}

var (
	onHost      = site{hostAddress: "127.0.0.1"}
	inContainer = site{hostAddress: "172.18.0.1", networks: map[string]bool{"shop_front": true, "zoo": true}}
	remotely    = site{hostAddress: "docker.example", engine: "docker.example"}
	onDesktop   = site{hostAddress: dockerHostName}
)

func TestPorts(t *testing.T) {
	several := withPorts(port{private: 6379}, port{private: 80, public: 8080, ip: "0.0.0.0"}, port{private: 80, public: 8080, ip: "::"})
	for name, c := range map[string]struct {
		sel  Selector
		c    *container
		at   site
		dial string // the expected address; empty: rejected
		want string // a substring of the reason
	}{
		"the only exposed port":             {c: running(nil), dial: "10.0.0.2:80"},
		"one port, published twice":         {c: withPorts(port{80, 81, "0.0.0.0"}, port{80, 81, "::"}), dial: "10.0.0.2:80"},
		"none":                              {c: withPorts(), want: "exposes no TCP port: set its label rgate.port"},
		"several":                           {c: several, want: "exposes several TCP ports (80, 6379): set its label rgate.port to one of them"},
		"label":                             {c: labelled("rgate.port", "9000"), dial: "10.0.0.2:9000"},
		"option over label":                 {sel: Selector{Port: 7000}, c: labelled("rgate.port", "9000"), dial: "10.0.0.2:7000"},
		"option over a bad label":           {sel: Selector{Port: 7000}, c: labelled("rgate.port", "http"), dial: "10.0.0.2:7000"},
		"published":                         {sel: Selector{HostPort: true}, c: several, dial: "127.0.0.1:8080"},
		"published, gateway in a container": {sel: Selector{HostPort: true}, c: several, at: inContainer, dial: "172.18.0.1:8080"},
		"published, engine elsewhere":       {sel: Selector{HostPort: true}, c: several, at: remotely, dial: "docker.example:8080"},
		"published on IPv6 alone":           {sel: Selector{HostPort: true}, c: withPorts(port{80, 81, "::"}), dial: "127.0.0.1:81"},
		"published on one address":          {sel: Selector{HostPort: true}, c: withPorts(port{80, 81, "192.0.2.7"}), at: remotely, dial: "192.0.2.7:81"},
		"published on loopback":             {sel: Selector{HostPort: true}, c: withPorts(port{80, 81, "127.0.0.1"}), dial: "127.0.0.1:81"},
		"published on loopback elsewhere":   {sel: Selector{HostPort: true}, c: withPorts(port{80, 81, "127.0.0.1"}), at: remotely, want: "only published on 127.0.0.1"},
		"published on loopback, desktop":    {sel: Selector{HostPort: true}, c: withPorts(port{80, 81, "127.0.0.1"}), at: onDesktop, dial: "host.docker.internal:81"},
		"publishes none":                    {sel: Selector{HostPort: true}, c: running(nil), want: "publishes no TCP port"},
		"publishes another":                 {sel: Selector{HostPort: true, Port: 6379}, c: several, want: "port 6379 is not published: publish it (docker run -p 6379)"},
		"publishes several":                 {sel: Selector{HostPort: true}, c: withPorts(port{80, 81, ""}, port{90, 91, ""}), want: "publishes several TCP ports (80, 90)"},
	} {
		t.Run(name, func(t *testing.T) {
			if c.at.hostAddress == "" {
				c.at = onHost
			}
			check(t, c.sel, c.c, c.at, c.dial, c.want)
		})
	}
}

func TestNetworks(t *testing.T) {
	two := withNetworks(network{name: "zoo", ipv4: "10.2.0.2"}, network{name: "back", ipv4: "10.1.0.2"})
	compose := withNetworks(network{name: "shop_back", ipv4: "10.1.0.2"}, network{name: "shop_front", ipv4: "10.2.0.2"})
	compose.labels = map[string]string{"app": "web", labelComposeProject: "shop"}
	lan := withNetworks(network{name: "lan", ipv4: "192.0.2.7"}, network{name: "zone", ipv4: "10.4.0.2"})
	kinds := map[string]networkKind{"lan": {driver: "macvlan"}, "zone": {driver: "bridge"}, "only": {driver: "bridge", internal: true}}
	for name, c := range map[string]struct {
		sel        Selector
		c          *container
		at         site
		dial, want string
	}{
		"the first by name":             {c: two, dial: "10.1.0.2:80"},
		"the gateway's own":             {c: two, at: inContainer, dial: "10.2.0.2:80"},
		"the first, sharing none":       {c: running(nil), at: inContainer, dial: "10.0.0.2:80"},
		"option":                        {sel: Selector{Network: "zoo"}, c: two, dial: "10.2.0.2:80"},
		"option, not attached":          {sel: Selector{Network: "moon"}, c: two, want: `not attached to network "moon" (attached to back, zoo)`},
		"option, no network":            {sel: Selector{Network: "moon"}, c: withNetworks(), want: `(attached to none)`},
		"option, no address":            {sel: Selector{Network: "moon"}, c: withNetworks(network{name: "moon"}), want: `no address in network "moon"`},
		"short name":                    {sel: Selector{Network: "front"}, c: compose, dial: "10.2.0.2:80"},
		"full name":                     {sel: Selector{Network: "shop_front"}, c: compose, dial: "10.2.0.2:80"},
		"short name of another project": {sel: Selector{Network: "front"}, c: two, want: `not attached to network "front"`},
		"IPv6 alone":                    {c: withNetworks(network{name: "six", ipv6: "fd00::2"}), dial: "[fd00::2]:80"},
		"IPv4 before IPv6":              {c: withNetworks(network{name: "six", ipv4: "10.0.0.3", ipv6: "fd00::2"}), dial: "10.0.0.3:80"},
		"without an address":            {c: withNetworks(network{name: "a"}, network{name: "b", ipv4: "10.0.0.4"}), dial: "10.0.0.4:80"},
		"ingress of a swarm":            {c: withNetworks(network{name: "ingress", ipv4: "10.0.0.4"}, network{name: "mesh", ipv4: "10.0.1.4"}), dial: "10.0.1.4:80"},
		"ingress of a swarm alone":      {c: withNetworks(network{name: "ingress", ipv4: "10.0.0.4"}), want: "no address in any network"},
		"none":                          {c: withNetworks(), want: "no address in any network (ingress is ignored): attach the container to another network"},
		"a bridge before a LAN":         {c: lan, at: site{hostAddress: "127.0.0.1", kinds: kinds}, dial: "10.4.0.2:80"},
		"a shared LAN":                  {c: lan, at: site{hostAddress: "192.0.2.1", networks: map[string]bool{"lan": true}, kinds: kinds}, dial: "192.0.2.7:80"},
		"unknown kinds":                 {c: lan, dial: "192.0.2.7:80"},
		"remote":                        {c: two, at: remotely, want: `network "back" is on another machine, and its address may belong to another machine here: publish the port and set host_port, or add the network to routed of docker endpoint docker.example`},
		"remote, routed":                {c: two, at: site{hostAddress: "h", engine: "h", routed: map[string]bool{"zoo": true}}, dial: "10.2.0.2:80"},
		"remote, all routed":            {c: two, at: site{hostAddress: "h", engine: "h", routed: map[string]bool{"*": true}}, dial: "10.1.0.2:80"},
		"remote, option not routed":     {sel: Selector{Network: "back"}, c: two, at: site{hostAddress: "h", engine: "h", routed: map[string]bool{"zoo": true}}, want: "is on another machine"},
	} {
		t.Run(name, func(t *testing.T) {
			if c.at.hostAddress == "" {
				c.at = onHost
			}
			check(t, c.sel, c.c, c.at, c.dial, c.want)
		})
	}
	two.labels = map[string]string{"app": "web", labelNetwork: "zoo"}
	check(t, Selector{}, two, onHost, "10.2.0.2:80", "")
	check(t, Selector{Network: "back"}, two, onHost, "10.1.0.2:80", "")
}

// Engines list no ports of containers that are only in internal networks or on a LAN.
func TestUnlistedPorts(t *testing.T) {
	kinds := map[string]networkKind{"lan": {driver: "macvlan"}, "zone": {driver: "bridge"}, "only": {driver: "bridge", internal: true}}
	at := site{hostAddress: "127.0.0.1", kinds: kinds}
	for names, want := range map[string]string{
		"lan": `lists no ports of containers in network "lan": set its label rgate.port`, "only": `in network "only"`, "zone": "exposes no TCP port",
		"lan zone": "exposes no TCP port", "new": "exposes no TCP port",
	} {
		c := running(func(c *container) {
			c.ports, c.networks = nil, nil
			for _, name := range strings.Fields(names) {
				c.networks = append(c.networks, network{name: name, ipv4: "10.0.0.2"})
			}
		})
		check(t, Selector{}, c, at, "", want)
	}
}

// A container can use the network of another container, which determines its addresses.
func TestNetworkOfAnotherContainer(t *testing.T) {
	const ownerID = "feedfacefeedface"
	joined := func(labels ...string) *container {
		c := labelled(append(labels, labelPort, "80")...)
		c.networks, c.ports, c.networkMode, c.networkOwner = nil, nil, "container:"+ownerID, ownerID
		return c
	}
	owner := running(func(c *container) { c.id, c.name, c.labels = ownerID, "vpn", nil; c.networks[0].ipv4 = "10.0.0.7" })
	published := running(func(c *container) { c.ports = []port{{private: 80, public: 8080}} })
	onHostToo := running(func(c *container) { c.networkMode, c.networks = "host", []network{{name: "host"}} })
	for name, c := range map[string]struct {
		sel        Selector
		c, owner   *container
		dial, want string
	}{
		"its address":        {c: joined(), owner: owner, dial: "10.0.0.7:80"},
		"gone":               {c: joined(), want: "uses the network of container feedfacefeed, which does not run: recreate the container"},
		"gone, with a label": {c: joined(labelAddress, "10.0.0.7"), want: "which does not run"},
		"label":              {c: joined(labelAddress, "10.0.0.7"), owner: owner, dial: "10.0.0.7:80"},
		"label, replaced":    {c: joined(labelAddress, "10.0.0.6"), owner: owner, want: "must be an address of container vpn"},
		"label, a name":      {c: joined(labelAddress, "vpn"), owner: owner, dial: "vpn:80"},
		"host":               {c: joined(), owner: onHostToo, dial: "127.0.0.1:80"},
		"published":          {sel: Selector{HostPort: true}, c: joined(), owner: published, dial: "127.0.0.1:8080"},
		"published, label":   {sel: Selector{HostPort: true}, c: joined(labelAddress, "10.0.0.2"), owner: published, dial: "10.0.0.2:8080"},
		"no port":            {c: running(func(c *container) { c.ports, c.networkOwner = nil, ownerID }), owner: owner, want: "uses the network of container feedfacefeed and has no configured port"},
	} {
		target, rejection := resolve(&c.sel, c.c, c.owner, &onHost)
		if rejection == nil && (target.Dial != c.dial || c.want != "") || rejection != nil && (c.want == "" || !strings.Contains(rejection.Reason, c.want)) {
			t.Errorf("%s: %+v, %+v, want %s %s", name, target, rejection, c.dial, c.want)
		}
	}
}

func TestExclusion(t *testing.T) {
	oneOff := func(labels ...string) *container { return labelled(append(labels, labelComposeOneOff, "True")...) }
	step := running(func(c *container) { c.buildStep = true })
	check(t, Selector{}, oneOff(), onHost, "", "is a one-off container of docker compose run: set its label rgate.enable=true")
	check(t, Selector{}, oneOff(labelEnable, "true"), onHost, "10.0.0.2:80", "")
	check(t, Selector{Include: []string{"one_offs"}}, oneOff(), onHost, "10.0.0.2:80", "")
	check(t, Selector{MatchLabels: map[string]string{labelComposeOneOff: "True"}}, oneOff(), onHost, "10.0.0.2:80", "")
	check(t, Selector{Include: []string{"one_offs"}}, oneOff(labelEnable, "false"), onHost, "", "the label rgate.enable is false")
	check(t, Selector{}, labelled(labelComposeOneOff, "False"), onHost, "10.0.0.2:80", "")
	check(t, Selector{}, step, onHost, "", "is a step of docker build")
	check(t, Selector{Include: []string{"build_steps"}}, step, onHost, "10.0.0.2:80", "")
	for _, value := range []string{"yes", "", "TRUE", "1"} {
		check(t, Selector{}, labelled(labelEnable, value), onHost, "", "must be true or false")
	}
}

func TestHostNetwork(t *testing.T) {
	host := func(labels ...string) *container {
		c := labelled(labels...)
		c.networkMode, c.ports = "host", nil
		c.networks = []network{{name: "host"}}
		return c
	}
	check(t, Selector{}, host("rgate.port", "8080"), onHost, "127.0.0.1:8080", "")
	check(t, Selector{}, host("rgate.port", "8080"), inContainer, "172.18.0.1:8080", "")
	check(t, Selector{}, host("rgate.port", "8080"), remotely, "docker.example:8080", "")
	check(t, Selector{HostPort: true}, host("rgate.port", "8080"), onHost, "127.0.0.1:8080", "")
	check(t, Selector{}, host("rgate.port", "8080", "rgate.address", "192.0.2.1"), onHost, "192.0.2.1:8080", "")
	check(t, Selector{}, host(), onHost, "", "uses its host's network and has no configured port")
}

func TestAddressLabel(t *testing.T) {
	for value, dial := range map[string]string{
		"192.0.2.1":     "192.0.2.1:80",
		"fd00::9":       "[fd00::9]:80",
		"[fd00::9]":     "[fd00::9]:80",
		"web.internal":  "web.internal:80",
		"with_a-dash.1": "with_a-dash.1:80",
	} {
		check(t, Selector{}, labelled("rgate.address", value), onHost, dial, "")
	}
	for _, value := range []string{
		"", "http://x", "web:80", "192.0.2.1:80", "a b", "{env.SECRET}", "unix//run/x", "fe80::1%eth0", "-x", ".x", "ä",
		strings.Repeat("x", 254),
	} {
		check(t, Selector{}, labelled("rgate.address", value), onHost, "", "must be an IP address or a host name")
	}
	for _, value := range []string{
		"127.0.0.1", "127.9.9.9", "::1", "[::1]", "::ffff:127.0.0.1", "169.254.169.254", "fe80::1", "0.0.0.0", "::", "224.0.0.1", "255.255.255.255",
		"localhost", "LocalHost", "localhost.", "x.localhost",
	} {
		check(t, Selector{}, labelled("rgate.address", value), onHost, "", "must be an address of the container")
		check(t, Selector{Include: []string{"local_addresses"}}, labelled("rgate.address", value), onHost, "", "")
	}
	published := labelled("rgate.address", "192.0.2.1")
	published.ports = []port{{private: 80, public: 8080}}
	check(t, Selector{HostPort: true}, published, onHost, "192.0.2.1:8080", "")
	check(t, Selector{HostPort: true}, labelled("rgate.address", "192.0.2.1", "rgate.port", "80"), onHost, "", "port 80 is not published")
	alone := withNetworks()
	alone.labels = map[string]string{labelAddress: "192.0.2.1"}
	check(t, Selector{}, alone, onHost, "192.0.2.1:80", "")
}

func TestBadLabels(t *testing.T) {
	for _, c := range []struct{ label, value, want string }{
		{labelPort, "http", `invalid label rgate.port="http": must be a whole number from 1 to 65535`},
		{labelPort, "0", "from 1 to 65535"},
		{labelPort, "65536", "from 1 to 65535"},
		{labelPort, "80/tcp", "from 1 to 65535"},
		{labelPort, " 80", "from 1 to 65535"},
		{labelPort, "-1", "from 1 to 65535"},
		{labelPort, "+1", "from 1 to 65535"},
		{labelPort, "", "from 1 to 65535"},
		{labelPort, "99999999999999999999", "from 1 to 65535"},
		{labelWeight, "0", "from 1 to 1000"},
		{labelWeight, "1001", "from 1 to 1000"},
		{labelWeight, "1.5", "from 1 to 1000"},
		{labelMaxRequests, "-1", "from 0 to 1073741824"},
		{labelMaxRequests, "many", "from 0 to 1073741824"},
		{labelScheme, "HTTP", "must be http, https or h2c"},
		{labelScheme, "", "must be http, https or h2c"},
		{labelNetwork, "", "must be the name of a network"},
	} {
		sel := Selector{MatchLabels: map[string]string{"app": "web"}}
		_, rejection := resolve(&sel, labelled(c.label, c.value), nil, &onHost)
		switch {
		case rejection == nil:
			t.Errorf("%s=%q was accepted", c.label, c.value)
		case rejection.Temporary || rejection.Label != c.label || rejection.Value != c.value:
			t.Errorf("%s=%q: rejection is %+v, want it to name the label and the value", c.label, c.value, rejection)
		case !strings.Contains(rejection.Reason, c.want):
			t.Errorf("%s=%q: reason is %q, want %q in it", c.label, c.value, rejection.Reason, c.want)
		}
	}
}

func TestLabelOptions(t *testing.T) {
	target, rejection := resolve(new(Selector), labelled("rgate.scheme", "h2c", "rgate.weight", "1000", "rgate.max_requests", "25"), nil, &onHost)
	if rejection != nil {
		t.Fatalf("rejected: %s", rejection.Reason)
	}
	if want := (Target{"10.0.0.2:80", "web-1", "0123456789abcdef", "h2c", 1000, 25, false, "10.0.0.2:80" + poolDigits("0123456789abcdef")}); target != want {
		t.Errorf("target is %+v, want %+v", target, want)
	}
	target, _ = resolve(&Selector{Scheme: "https"}, labelled("rgate.scheme", "h2c"), nil, &onHost)
	if target.Scheme != "https" {
		t.Errorf("scheme is %q, want the option's https", target.Scheme)
	}
	target, _ = resolve(new(Selector), running(nil), nil, &onHost)
	if target.Scheme != "http" || target.Weight != 1 || target.MaxRequests != 0 {
		t.Errorf("defaults are %+v, want http, weight 1, no limit", target)
	}
}

func TestGatewaysOwnContainerIsRejected(t *testing.T) {
	at := onHost
	at.self = "0123456789abcdef"
	check(t, Selector{}, running(nil), at, "", "the container runs this gateway")
	at.self = "fedcba9876543210"
	check(t, Selector{}, running(nil), at, "10.0.0.2:80", "")
}

// A reverse proxy uses one scheme for all its upstreams.
func TestOnlyScheme(t *testing.T) {
	only := Selector{onlyScheme: "https"}
	target, rejection := resolve(&only, running(nil), nil, &onHost)
	if rejection != nil || target.Scheme != "https" {
		t.Errorf("without a label: %+v, %+v, want https", target, rejection)
	}
	check(t, only, labelled("rgate.scheme", "https"), onHost, "10.0.0.2:80", "")
	check(t, only, labelled("rgate.scheme", "http"), onHost, "", "use a separate reverse_proxy with scheme http")
}

func TestStatesAndHealth(t *testing.T) {
	for _, c := range []struct {
		state, status, word string
		health              string
		want                string
	}{
		{state: "running", status: "Up 5 seconds"},
		{state: "running", status: "Up 5 seconds (healthy)"},
		{state: "running", status: "Up 5 seconds (unhealthy)", want: "the health check of the container fails"},
		{state: "running", status: "Up 5 seconds (health: starting)", want: "the health check of the container has not passed yet"},
		{state: "running", status: "Up 5 seconds (starting)", want: "the health check of the container has not passed yet"},
		{state: "running", status: "Up 5 seconds", word: "unhealthy", want: "the health check of the container fails"},
		{state: "running", status: "Up 5 seconds", word: "none"},
		{state: "running", status: "Up 5 seconds (health: starting)", health: "any"},
		{state: "running", status: "Up 5 seconds (unhealthy)", health: "any"},
		{state: "paused", status: "Up 5 seconds (Paused)", want: "the container is paused"},
		{state: "paused", status: "Up 5 seconds (Paused)", health: "any", want: "the container is paused"},
		{state: "restarting", status: "Restarting (1) 2 seconds ago", want: "the container is restarting"},
		{state: "removing", want: "the container is removing"},
		{state: "dead", want: "the container is dead"},
		{state: "exited", want: "the container is exited"},
	} {
		subject := running(func(x *container) { x.state, x.health = c.state, parseHealth(c.word, c.status) })
		_, rejection := resolve(&Selector{Health: c.health}, subject, nil, &onHost)
		switch {
		case c.want == "" && rejection != nil:
			t.Errorf("%+v: rejected: %s", c, rejection.Reason)
		case c.want != "" && (rejection == nil || !rejection.Temporary || !strings.Contains(rejection.Reason, c.want)):
			t.Errorf("%+v: rejection is %+v", c, rejection)
		}
	}
}

// check fails the test if c is not dialed at dial, or not rejected with a reason that
// contains reason.
func check(t *testing.T, sel Selector, c *container, at site, dial, reason string) {
	t.Helper()
	target, rejection := resolve(&sel, c, nil, &at)
	switch {
	case dial != "" && rejection != nil:
		t.Errorf("rejected: %s; want it dialed at %s", rejection.Reason, dial)
	case dial != "" && target.Dial != dial:
		t.Errorf("dialed at %s, want %s", target.Dial, dial)
	case dial == "" && reason == "":
		if rejection != nil {
			t.Errorf("rejected: %s", rejection.Reason)
		}
	case dial == "" && rejection == nil:
		t.Errorf("dialed at %s, want it rejected with %q", target.Dial, reason)
	case dial == "" && !strings.Contains(rejection.Reason, reason):
		t.Errorf("rejected: %s; want %q", rejection.Reason, reason)
	}
}

// For any labels, a container is either rejected with a reason or dialed at a host and
// port without placeholders.
func FuzzLabels(f *testing.F) {
	f.Add("80", "bridge", "http", "1", "0", "192.0.2.1")
	f.Add("0", "", "gopher", "-1", "x", "{env.SECRET}")
	f.Add("65536", "front", "h2c", "1000", "1073741824", "[fd00::1]")
	f.Add("", "zoo", "https", "", "", "web.internal:80")
	f.Add("080", "shop_front", "http", "00", "+1", "fe80::1%25eth0")
	f.Fuzz(func(t *testing.T, port, network, scheme, weight, maxRequests, address string) {
		c := labelled(labelPort, port, labelNetwork, network, labelScheme, scheme,
			labelWeight, weight, labelMaxRequests, maxRequests, labelAddress, address)
		target, rejection := resolve(new(Selector), c, nil, &onHost)
		if rejection != nil {
			if rejection.Reason == "" || rejection.Container != c.name || rejection.ID != c.id {
				t.Errorf("the rejection is incomplete: %+v", rejection)
			}
			return
		}
		if !soundDial(target.Dial) || target.Weight < 1 || target.Weight > maxWeight ||
			target.MaxRequests < 0 || target.MaxRequests > maxMaxRequests {
			t.Errorf("target is %+v", target)
		}
	})
}
