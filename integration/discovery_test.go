package integration

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"github.com/docker/docker/api/types/build"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/network"

	"github.com/rgate/rgate/dockerupstreams"
	"github.com/rgate/rgate/dockerupstreams/dockertest"
	"github.com/rgate/rgate/internal/testkit"
)

// dockerReport returns the admin API's report of the engines.
func (g *gateway) dockerReport(t testing.TB) []dockerupstreams.EndpointStatus {
	t.Helper()
	response, err := g.client.Get(g.adminURL("/rgate/docker"))
	must(t, "reading the report", err)
	defer response.Body.Close()
	var report struct {
		Endpoints []dockerupstreams.EndpointStatus `json:"endpoints"`
	}
	must(t, "decoding the report", json.NewDecoder(response.Body).Decode(&report))
	return report.Endpoints
}

// reasonOf returns the reason why the selectors of a gateway exclude a container, or "".
func (g *gateway) reasonOf(t testing.TB, name string) string {
	t.Helper()
	for _, endpoint := range g.dockerReport(t) {
		for _, selector := range endpoint.Selectors {
			for _, rejected := range selector.Rejected {
				if rejected.Container == name {
					return rejected.Reason
				}
			}
			for _, miss := range selector.NearMisses {
				if miss.Container == name {
					return miss.Reason
				}
			}
		}
	}
	return ""
}

// awaitReason waits until a container is excluded with a reason that contains want.
func (g *gateway) awaitReason(t testing.TB, name, want string) {
	t.Helper()
	var got string
	testkit.Eventually(t, name+" is excluded: "+want, func() bool {
		got = g.reasonOf(t, name)
		return strings.Contains(got, want)
	})
}

// startBuild runs a step of a classic docker build whose container has the given label
// until the returned function is called.
func startBuild(t testing.TB, app string) (stop func()) {
	t.Helper()
	var files bytes.Buffer
	archive := tar.NewWriter(&files)
	text := "FROM " + image + "\nLABEL " + appLabel + "=" + app + " " + runLabel + "=" + runID + "\nRUN [\"/backend\"]\n"
	must(t, "writing the build context", archive.WriteHeader(&tar.Header{Name: "Dockerfile", Mode: 0o600, Size: int64(len(text))}))
	_, err := io.WriteString(archive, text)
	must(t, "writing the build context", err)
	must(t, "writing the build context", archive.Close())
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		response, err := engine.ImageBuild(ctx, &files, build.ImageBuildOptions{Version: build.BuilderV1, NoCache: true, ForceRemove: true})
		if err == nil {
			_, _ = io.Copy(io.Discard, response.Body)
			_ = response.Body.Close()
		}
	}()
	return func() { cancel(); <-done }
}

func TestE1OneOffsAndBuildStepsGetNoRequests(t *testing.T) {
	t.Parallel()
	web := startContainer(t, spec{})
	oneOff := startContainer(t, spec{labels: map[string]string{"com.docker.compose.oneoff": "True"}})
	enabled := startContainer(t, spec{labels: map[string]string{"com.docker.compose.oneoff": "True", "rgate.enable": "true"}})
	disabled := startContainer(t, spec{labels: map[string]string{"rgate.enable": "false"}})
	unclear := startContainer(t, spec{labels: map[string]string{"rgate.enable": "no"}})
	missed := startContainer(t, spec{labels: map[string]string{appLabel: appOf(t), "env": "staging"}})
	ended := startContainer(t, spec{created: true})
	g := startGateway(t, `
routes: [{path_prefix: /, backend: web}, {path_prefix: /all, backend: all}]
backends:
  - {name: web, match_labels: {app_name: $APP, env: production}}
  - {name: all, match_labels: {app_name: $APP, env: production}, include: [one_offs, build_steps]}
operations: true
`)
	g.await(t, "web", 2)
	g.await(t, "all", 3)
	stop := startBuild(t, appOf(t)+" env=production")
	defer stop()
	g.await(t, "all", 4)
	step := ""
	testkit.Eventually(t, "the step is excluded", func() bool {
		for _, endpoint := range g.dockerReport(t) {
			for _, selector := range endpoint.Selectors {
				for _, rejected := range selector.Rejected {
					if strings.Contains(rejected.Reason, "is a step of docker build") {
						step = rejected.Container
					}
				}
			}
		}
		return step != ""
	})
	for name, want := range map[string]string{
		oneOff.name: "one-off container", disabled.name: "rgate.enable is false", unclear.name: "must be true or false",
		missed.name: "but env=staging: set env=production to select it", ended.name: "does not run (Created): start it",
	} {
		if reason := g.reasonOf(t, name); !strings.Contains(reason, want) {
			t.Errorf("%s: reason is %q, want %q", name, reason, want)
		}
	}
	for range 60 {
		g.get(t, "/")
	}
	for name, box := range map[string]*box{"one-off": oneOff, "disabled": disabled, "unclear": unclear, "missed": missed} {
		if box.counts(t).Total != 0 {
			t.Errorf("the container %s received requests", name)
		}
	}
	if web.counts(t).Total == 0 || enabled.counts(t).Total == 0 {
		t.Error("a member received no requests")
	}
	services := g.get(t, "/gateway/services").body
	for _, name := range []string{oneOff.name, disabled.name, missed.name, ended.name, step} {
		if !strings.Contains(services, `"container":"`+name+`"`) {
			t.Errorf("%s is not in /services: %s", name, services)
		}
	}
	if n := strings.Count(g.output.String(), `"container":"`+oneOff.name+`"`); n != 1 {
		t.Errorf("the one-off container was logged %d times, want once", n)
	}
}

// TestE5TheOwnerOfANetworkIsReplaced checks that a container that uses the network of
// another is dialed there, and not after the other was replaced.
func TestE5TheOwnerOfANetworkIsReplaced(t *testing.T) {
	t.Parallel()
	requireEngine(t)
	owner := startContainer(t, spec{labels: map[string]string{appLabel: "owner"}, args: []string{"-listen", ":9999"}, deaf: true})
	join := func(labels map[string]string) *box {
		return startContainer(t, spec{labels: labels, mode: container.NetworkMode("container:" + owner.id), deaf: true, args: []string{"-listen", ":" + labels["rgate.port"]}})
	}
	plain := join(map[string]string{"rgate.port": "8081"})
	labeled := join(map[string]string{"rgate.port": "8082", "rgate.address": owner.ip})
	g := startGateway(t, oneBackend)
	g.await(t, "web", 2)
	for range 10 {
		if response := g.get(t, "/"); response.status != http.StatusOK {
			t.Fatalf("status is %d, want 200: %s", response.status, g.output)
		}
	}

	address := owner.ip
	owner.remove(t)
	stranger := startContainer(t, spec{labels: map[string]string{appLabel: "stranger"}, args: []string{"-listen", ":8081,:8082"}, deaf: true})
	g.awaitReason(t, plain.name, "which does not run: recreate the container")
	g.awaitReason(t, labeled.name, "which does not run: recreate the container")
	if response := g.get(t, "/"); response.status != http.StatusServiceUnavailable {
		t.Errorf("status is %d, want 503", response.status)
	}
	if stranger.ip != address {
		t.Logf("the stranger has the address %s, not the owner's %s", stranger.ip, address)
	}
}

func TestE9NetworksThatCannotBeReachedAreNotPreferred(t *testing.T) {
	t.Parallel()
	inner := makeNetwork(t, "inner", func(o *network.CreateOptions) { o.Internal = true })
	alone := startContainer(t, spec{networks: []string{inner}, deaf: true})
	g := startGateway(t, oneBackend)
	g.awaitReason(t, alone.name, `the engine lists no ports of containers in network "`+inner+`": set its label rgate.port`)

	// Not every kernel supports macvlan. The name of the LAN sorts before the bridge's.
	fake := dockertest.New(t)
	fake.Run(dockertest.Container{Labels: map[string]string{appLabel: appOf(t), "rgate.port": "8080"}, Networks: map[string]dockertest.Network{
		"a-lan": {IPAddress: "192.0.2.7", Driver: "macvlan"}, "bridge": {IPAddress: "172.17.0.7"},
	}})
	g = startGateway(t, "docker: "+fake.Host()+oneBackend)
	g.await(t, "web", 1)
	if got := g.dockerReport(t)[0].Selectors[0].Targets[0].Address; got != "172.17.0.7:8080" {
		t.Errorf("the address is %s, want the bridge's", got)
	}
}

func TestE12LabelsCannotPublishTheGatewaysHost(t *testing.T) {
	t.Parallel()
	g := startGateway(t, oneBackend)
	for _, address := range []string{"127.0.0.1", "localhost", "::1", "0.0.0.0", "169.254.169.254"} {
		b := startContainer(t, spec{labels: map[string]string{"rgate.address": address, "rgate.port": strconv.Itoa(g.admin)}, deaf: true})
		g.awaitReason(t, b.name, "must be an address of the container: loopback, link-local and multicast addresses require the option include: local_addresses")
	}
	if response := g.get(t, "/config/"); response.status != http.StatusServiceUnavailable {
		t.Errorf("status is %d, want 503", response.status)
	}
}

func TestE14EnginesThatCannotBeReachedThatWay(t *testing.T) {
	t.Parallel()
	file := writeFile(t, "rgate.yaml", "docker: ssh://me@host\nroutes: [{path_prefix: /, backend: a}]\nbackends: [{name: a, match_labels: [app=a]}]\n")
	if got := rgate(t, nil, "validate", "-c", file); got.code == 0 || !strings.Contains(got.stderr, "is not supported: set host to tcp://") {
		t.Errorf("ssh: %+v", got)
	}
	g := startGateway(t, oneBackend, "DOCKER_CONTEXT=elsewhere")
	if n := strings.Count(g.output.String(), "the environment variable DOCKER_CONTEXT is ignored: set DOCKER_HOST"); n != 1 {
		t.Errorf("the ignored context was logged %d times, want once", n)
	}
}

func TestE15LabelsThatNoContainerHas(t *testing.T) {
	t.Parallel()
	for label, want := range map[string]string{
		"app!=a":                  "containers cannot be excluded by label",
		"app=*":                   "there are no wildcards",
		"app={http.request.host}": "must not depend on the request",
	} {
		yaml := writeFile(t, "rgate.yaml", "routes: [{path_prefix: /, backend: a}]\nbackends: [{name: a, match_labels: [\""+label+"\"]}]\n")
		caddy := writeFile(t, "Caddyfile", ":8080 {\nrgate {\nbackend a {\nmatch_labels \""+label+"\"\n}\nroute / a\n}\n}\n")
		alone := writeFile(t, "alone.Caddyfile", ":8080 {\nreverse_proxy {\ndynamic docker_labels \""+label+"\"\n}\n}\n")
		for _, args := range [][]string{{"-c", yaml}, {"-c", caddy}, {"-c", alone, "--adapter", "caddyfile"}} {
			if got := rgate(t, nil, append([]string{"validate"}, args...)...); got.code == 0 || !strings.Contains(got.stderr, want) {
				t.Errorf("%s in %v: exit code %d, %s", label, args, got.code, got.stderr)
			}
		}
	}
}
