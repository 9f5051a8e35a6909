package dockerupstreams

import (
	"reflect"
	"strings"
	"testing"
)

const (
	someID  = "4d2f1b3c5a69788796a5b4c3d2e1f00f1e2d3c4b5a69788796a5b4c3d2e1f001"
	otherID = "0000000000000000000000000000000000000000000000000000000000000002"
)

func TestOwnID(t *testing.T) {
	for name, c := range map[string]struct{ mounts, want string }{
		"docker": {`700 600 0:50 / / rw - overlay overlay rw
710 700 8:1 /var/lib/docker/containers/` + someID + `/resolv.conf /etc/resolv.conf rw - ext4 /dev/sda1 rw
711 700 8:1 /var/lib/docker/containers/` + someID + `/hostname /etc/hostname rw - ext4 /dev/sda1 rw
`, someID},
		"podman":     {"7 6 8:1 /overlay-containers/" + someID + "/userdata/hosts /etc/hosts rw - ext4 /dev/sda1 rw", someID},
		"a host":     {"90 26 0:40 / /var/lib/docker/containers/" + someID + "/mounts/shm rw - tmpfs shm rw\n", ""},
		"a bind":     {"90 26 8:1 /home/" + someID + " /srv/data rw - ext4 /dev/sda1 rw\n", ""},
		"nothing":    {"", ""},
		"half lines": {"1 2 3\n\n4\n", ""},
	} {
		if got := ownID(strings.NewReader(c.mounts)); got != c.want {
			t.Errorf("%s: ID is %q, want %q", name, got, c.want)
		}
	}
}

func TestLocate(t *testing.T) {
	own := &container{id: someID, networkMode: "shop_front", networks: []network{
		{name: "alone"}, {name: "shop_front", ipv4: "172.18.0.9", gateway: "172.18.0.1"}, {name: "zoo", gateway: "172.19.0.1"},
	}}
	lan := &container{id: someID, networks: []network{
		{name: "lan", ipv4: "192.0.2.9", gateway: "192.0.2.1"}, {name: "only", ipv4: "10.9.0.9", gateway: "10.9.0.1"}, {name: "zoo", gateway: "172.19.0.1"},
	}}
	lanKinds := map[string]networkKind{"lan": {driver: "macvlan"}, "only": {driver: "bridge", internal: true}, "zoo": {driver: "bridge"}}
	six := &container{id: someID, networks: []network{{name: "six", gateway6: "fd00::1"}}}
	host := &container{id: someID, networkMode: "host", networks: []network{{name: "host"}}}
	for name, c := range map[string]struct {
		me     origin
		own    *container
		remote string
		kinds  map[string]networkKind
		want   site
	}{
		"in a container of a LAN": {own: lan, kinds: lanKinds, want: site{hostAddress: "172.19.0.1", networks: map[string]bool{"lan": true, "only": true, "zoo": true}, kinds: lanKinds}},
		"on the host":             {want: site{hostAddress: "127.0.0.1"}},
		"in a container":          {own: own, want: site{hostAddress: "172.18.0.1", networks: map[string]bool{"alone": true, "shop_front": true, "zoo": true}}},
		"in one with IPv6 alone":  {own: six, want: site{hostAddress: "fd00::1", networks: map[string]bool{"six": true}}},
		"in one by a proxy":       {own: six, remote: "socket-proxy", want: site{hostAddress: "fd00::1", networks: map[string]bool{"six": true}}},
		"in a host-networked one": {own: host, want: site{hostAddress: "127.0.0.1"}},
		"elsewhere":               {remote: "docker.example", want: site{hostAddress: "docker.example", engine: "docker.example"}},
		"in one with a bridge":    {me: origin{contained: true, bridged: func() bool { return true }}, want: site{hostAddress: "127.0.0.1"}},
		"in one without a bridge": {me: origin{contained: true, bridged: func() bool { return false }}, want: site{hostAddress: "host.docker.internal"}},
		"in an unknown container": {me: origin{contained: true}, want: site{hostAddress: "host.docker.internal"}},
	} {
		if got := locate(c.me, c.own, c.remote, c.kinds); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: %+v, want %+v", name, got, c.want)
		}
	}
}

func TestEndpoints(t *testing.T) {
	tls := t.TempDir()
	for name, c := range map[string]struct {
		env    map[string]string
		e      Endpoint
		want   address
		remote string
		err    string
	}{
		"platform":          {want: address{host: "unix:///var/run/docker.sock"}},
		"environment":       {env: map[string]string{"DOCKER_HOST": "tcp://10.0.0.1:2375"}, want: address{host: "tcp://10.0.0.1:2375"}, remote: "10.0.0.1"},
		"config over it":    {env: map[string]string{"DOCKER_HOST": "tcp://10.0.0.1:2375"}, e: Endpoint{Host: "unix:///x"}, want: address{host: "unix:///x"}},
		"version":           {env: map[string]string{"DOCKER_API_VERSION": "1.30"}, e: Endpoint{Host: "unix:///x"}, want: address{host: "unix:///x", apiVersion: "1.30"}},
		"TLS by variables":  {env: map[string]string{"DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": tls}, e: Endpoint{Host: "tcp://[fd00::1]:2376"}, want: address{host: "tcp://[fd00::1]:2376", certPath: tls}, remote: "fd00::1"},
		"TLS in its place":  {env: map[string]string{"DOCKER_TLS_VERIFY": "1", "HOME": "/home/x"}, e: Endpoint{Host: "tcp://h:2376"}, want: address{host: "tcp://h:2376", certPath: "/home/x/.docker"}, remote: "h"},
		"no TLS on sockets": {env: map[string]string{"DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": tls}, e: Endpoint{Host: "unix:///x"}, want: address{host: "unix:///x"}},
		"TLS by config":     {e: Endpoint{Host: "tcp://localhost:2376", CertPath: tls}, want: address{host: "tcp://localhost:2376", certPath: tls}},
		"loopback":          {e: Endpoint{Host: "tcp://127.0.0.1:2375"}, want: address{host: "tcp://127.0.0.1:2375"}},
		"a path":            {e: Endpoint{Host: "/var/run/docker.sock"}, err: "must be an address such as unix:///path/to/socket"},
		"ssh":               {e: Endpoint{Host: "ssh://me@host"}, err: `docker host "ssh://me@host" is not supported: set host to tcp://`},
		"default port":      {e: Endpoint{Host: "tcp://h"}, want: address{host: "tcp://h:2375"}, remote: "h"},
		"default IPv6 port": {e: Endpoint{Host: "tcp://[fd00::1]"}, want: address{host: "tcp://[fd00::1]:2375"}, remote: "fd00::1"},
		"default TLS port":  {e: Endpoint{Host: "tcp://h", CertPath: tls}, want: address{host: "tcp://h:2376", certPath: tls}, remote: "h"},
		"no host":           {e: Endpoint{Host: "tcp://:2375"}, err: "must be tcp://host:port"},
		"a secret":          {e: Endpoint{Host: "ftp://me:secret@host"}, err: "ftp://me:xxxxx@host"},
		"TLS on a socket":   {e: Endpoint{Host: "unix:///x", CertPath: tls}, err: "and cert_path cannot be combined"},
		"TLS on plain HTTP": {e: Endpoint{Host: "http://h:2375", CertPath: tls}, err: "and cert_path cannot be combined"},
	} {
		t.Run(name, func(t *testing.T) {
			for _, variable := range []string{"DOCKER_HOST", "DOCKER_CERT_PATH", "DOCKER_TLS_VERIFY", "DOCKER_API_VERSION"} {
				t.Setenv(variable, c.env[variable])
			}
			if home := c.env["HOME"]; home != "" {
				t.Setenv("HOME", home)
			}
			got, err := resolveEndpoint(c.e)
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) {
					t.Errorf("error is %v, want %q", err, c.err)
				}
				return
			}
			if err != nil || got != c.want || got.remoteHost() != c.remote {
				t.Errorf("%+v (remote host %q), %v, want %+v (%q)", got, got.remoteHost(), err, c.want, c.remote)
			}
		})
	}
}

func TestNames(t *testing.T) {
	for want, names := range map[string][]string{
		"web-1": {"/web-1"},
		"b":     {"/a/alias", "/b", "/c/b"},
		"a":     {"/b", "/a"},
		"":      nil,
	} {
		if got := parseName(names); got != want {
			t.Errorf("name of %v is %q, want %q", names, got, want)
		}
	}
}

func TestDecodeList(t *testing.T) {
	for _, text := range []string{"null", "[]"} {
		if list, err := decodeList(strings.NewReader(text)); err != nil || len(list) != 0 {
			t.Errorf("%s: %v, %v, want nothing", text, list, err)
		}
	}
	for _, text := range []string{"", "[", "{}", "3", `[{"Id":"a"}`, `[{}]`, `[{"Id":3}]`, `[{"Id":"a"}`} {
		if _, err := decodeList(strings.NewReader(text)); err == nil {
			t.Errorf("%s: no error", text)
		}
	}
	list, err := decodeList(strings.NewReader(`[{"Id":"` + otherID + `","State":"running","Health":{"Status":"starting"},` +
		`"NetworkSettings":{"Networks":{"a":null}},"Ports":[{"PrivatePort":53,"Type":"udp"}]}]`))
	if err != nil || len(list) != 1 {
		t.Fatalf("%v, %v", list, err)
	}
	if c := list[0]; c.name != "000000000000" || c.health != healthStarting || firstNetwork(c, &onHost).address() != "" || len(c.ports) != 0 {
		t.Errorf("container is %+v", c)
	}
}
