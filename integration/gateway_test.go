package integration

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/rgate/rgate/internal/testkit"
)

// gateway is an rgate process.
type gateway struct {
	cmd    *exec.Cmd
	file   string // path of the configuration file
	port   int
	admin  int
	client *http.Client
	output *output // stdout and stderr

	exited   chan struct{}
	exitCode int // valid after exited is closed
}

// startGateway runs `rgate -c FILE -p PORT` until the test ends. In the configuration,
// $APP is replaced with appOf(t), and $DIR with a temporary directory. $PORT and $ADMIN
// are replaced with the ports of the gateway and its admin API. A missing admin address
// is added.
func startGateway(t testing.TB, config string, env ...string) *gateway {
	t.Helper()
	if !strings.Contains(config, "admin:") {
		config = strings.TrimRight(config, "\n") + "\nadmin: localhost:$ADMIN\n"
	}
	return launch(t, "rgate.yaml", config, env, "-c", "$FILE", "-p", "$PORT")
}

// launch runs rgate with a configuration file of the given name and waits until it
// responds. In args, $FILE is replaced with the path of the file.
func launch(t testing.TB, name, config string, env []string, args ...string) *gateway {
	t.Helper()
	folder := t.TempDir()
	g := &gateway{
		file: filepath.Join(folder, name), port: freePort(t), admin: freePort(t),
		output: new(output), exited: make(chan struct{}),
	}
	t.Cleanup(func() { g.logIfFailed(t) })
	g.write(t, config)
	g.client = newClient(t)
	for i, arg := range args {
		args[i] = strings.NewReplacer("$FILE", g.file, "$PORT", strconv.Itoa(g.port)).Replace(arg)
	}
	g.cmd = rgateCommand(t, folder, env, args...)
	g.cmd.Stdout, g.cmd.Stderr = g.output, g.output
	must(t, "starting the gateway", g.cmd.Start())
	go func() {
		_ = g.cmd.Wait() // the exit code is read below
		g.exitCode = g.cmd.ProcessState.ExitCode()
		close(g.exited)
	}()
	t.Cleanup(func() { g.end(t) })
	g.awaitStart(t)
	return g
}

// rgateCommand returns a command that runs the binary and stores its data in folder.
func rgateCommand(t testing.TB, folder string, env []string, args ...string) *exec.Cmd {
	t.Helper()
	requireEngine(t)
	cmd := exec.Command(binary, args...)
	dieWithTests(cmd)
	cmd.Env = append(os.Environ(), "HOME="+folder, "XDG_DATA_HOME="+folder, "XDG_CONFIG_HOME="+folder)
	cmd.Env = append(cmd.Env, env...)
	return cmd
}

// write replaces the gateway's configuration file.
func (g *gateway) write(t testing.TB, config string) {
	t.Helper()
	config = strings.NewReplacer("$APP", appOf(t), "$PORT", strconv.Itoa(g.port), "$ADMIN", strconv.Itoa(g.admin),
		"$DIR", filepath.Dir(g.file)).Replace(config)
	must(t, "writing the configuration", os.WriteFile(g.file, []byte(config), 0o600))
}

// url returns the gateway's URL with the given path and query.
func (g *gateway) url(target string) string {
	return "http://" + g.address() + target
}

func (g *gateway) address() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(g.port)) }

// adminURL returns the admin API's URL with the given path.
func (g *gateway) adminURL(path string) string {
	return fmt.Sprintf("http://localhost:%d%s", g.admin, path)
}

func (g *gateway) awaitStart(t testing.TB) {
	t.Helper()
	testkit.Eventually(t, "the gateway responds", func() bool {
		select {
		case <-g.exited:
			t.Fatalf("the gateway exited with %d:\n%s", g.exitCode, g.output)
		default:
		}
		return g.responds()
	})
}

// responds reports whether the gateway responds. It sends a malformed request, which
// metrics do not count. An open port is not sufficient, because the gateway probes its
// ports before it starts.
func (g *gateway) responds() bool {
	conn, err := net.Dial("tcp", g.address())
	if err != nil {
		return false
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(patience))
	_, _ = io.WriteString(conn, "GET /%zz HTTP/1.1\r\nHost: gateway.example\r\n\r\n")
	line, _ := bufio.NewReader(conn).ReadString('\n')
	return strings.HasPrefix(line, "HTTP/1.1 400 ")
}

// await waits until a backend has the given number of upstreams. It sends no request.
func (g *gateway) await(t testing.TB, backend string, upstreams int) {
	t.Helper()
	testkit.Eventually(t, fmt.Sprintf("backend %s has %d upstreams", backend, upstreams), func() bool {
		return g.metric(t, "rgate_backend_upstreams", "backend", backend) == float64(upstreams)
	})
}

// metric returns the sum of a metric's series with the given labels. labels are
// alternating names and values.
func (g *gateway) metric(t testing.TB, name string, labels ...string) (sum float64) {
	t.Helper()
	response, err := g.client.Get(g.adminURL("/metrics"))
	must(t, "reading the metrics", err)
	defer response.Body.Close()
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(response.Body)
	must(t, "parsing the metrics", err)
	for _, series := range families[name].GetMetric() {
		have := make(map[string]string)
		for _, label := range series.GetLabel() {
			have[label.GetName()] = label.GetValue()
		}
		same := true
		for i := 0; i+1 < len(labels); i += 2 {
			same = same && have[labels[i]] == labels[i+1]
		}
		if same {
			sum += series.GetGauge().GetValue() + series.GetCounter().GetValue() + float64(series.GetHistogram().GetSampleCount())
		}
	}
	return sum
}

// signal sends a signal to the process.
func (g *gateway) signal(t testing.TB, signal os.Signal) {
	t.Helper()
	must(t, "sending a signal to the gateway", g.cmd.Process.Signal(signal))
}

// awaitExit waits until the process exits and returns its exit code.
func (g *gateway) awaitExit(t testing.TB) int {
	t.Helper()
	select {
	case <-g.exited:
		return g.exitCode
	case <-time.After(patience):
		t.Fatalf("the gateway did not end within %s", patience)
		return -1
	}
}

// end stops the process. It must exit with code 0 after SIGTERM, without panics or
// reported data races.
func (g *gateway) end(t testing.TB) {
	g.client.CloseIdleConnections()
	select {
	case <-g.exited:
	default:
		if err := g.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
			t.Errorf("ending the gateway: %v", err)
		}
		select {
		case <-g.exited:
			if g.exitCode != 0 {
				t.Errorf("the gateway exited with %d after SIGTERM", g.exitCode)
			}
		case <-time.After(2 * patience):
			t.Errorf("the gateway did not end %s after SIGTERM", 2*patience)
			_ = g.cmd.Process.Kill()
			<-g.exited
		}
	}
	for _, trouble := range []string{"DATA RACE", "panic", "goroutine "} {
		if strings.Contains(g.output.String(), trouble) {
			t.Errorf("the gateway's output has %q in it", trouble)
		}
	}
}

func (g *gateway) logIfFailed(t testing.TB) {
	if t.Failed() {
		t.Logf("the gateway wrote:\n%s", g.output)
	}
}

// output collects the output of a process.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer // Guarded by mu.
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// outcome is the result of a command.
type outcome struct {
	code           int
	stdout, stderr string
}

// rgate runs a command of the binary and waits until it exits.
func rgate(t testing.TB, env []string, args ...string) outcome {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd := rgateCommand(t, t.TempDir(), env, args...)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	cmd.WaitDelay = time.Second
	must(t, "starting rgate", cmd.Start())
	slow := time.AfterFunc(2*patience, func() { _ = cmd.Process.Kill() })
	defer slow.Stop()
	if err := cmd.Wait(); err != nil && cmd.ProcessState.ExitCode() < 0 {
		t.Fatalf("rgate %v did not end: %v\n%s", args, err, &stderr)
	}
	return outcome{cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()}
}

// The range is below the ephemeral ports, so that a free port remains free until the
// gateway listens on it.
const lowestPort, portCount = 12000, 18000

var lastPort atomic.Int64

func init() { lastPort.Store(int64(os.Getpid()*37) % portCount) }

func freePort(t testing.TB) int {
	t.Helper()
	for range portCount {
		port := lowestPort + int(lastPort.Add(1))%portCount
		listener, err := net.Listen("tcp", net.JoinHostPort("", strconv.Itoa(port)))
		if err == nil {
			_ = listener.Close()
			return port
		}
	}
	t.Fatal("found no free port")
	return 0
}

// sortedKeys returns the keys of a map, for messages of failing tests.
func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
