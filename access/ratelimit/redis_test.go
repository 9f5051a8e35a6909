package ratelimit

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/rgate/rgate/internal/testkit"
)

// redisServer is a redis-server process that listens on the loopback interface.
type redisServer struct {
	port int
	args []string
	cmd  *exec.Cmd
}

// startRedis starts a server that runs until the test ends.
func startRedis(t testing.TB, args ...string) *redisServer {
	t.Helper()
	testkit.RequireProgram(t, "redis-server")
	s := &redisServer{port: redisPort(t), args: args}
	s.start(t)
	t.Cleanup(s.kill)
	return s
}

func redisPort(t testing.TB) int {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return listener.Addr().(*net.TCPAddr).Port
}

func (s *redisServer) address() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(s.port)) }

// start starts the process. It can be called again after the process was killed.
func (s *redisServer) start(t testing.TB) {
	t.Helper()
	folder := t.TempDir()
	args := append(s.args, "--port", strconv.Itoa(s.port), "--bind", "127.0.0.1", "--dir", folder, "--save", "", "--appendonly", "no")
	s.cmd = exec.Command("redis-server", args...)
	s.cmd.Dir = folder
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	testkit.Eventually(t, "redis-server listens", func() bool {
		conn, err := net.Dial("tcp", s.address())
		if err != nil {
			return false
		}
		defer conn.Close()
		_, _ = fmt.Fprint(conn, "PING\r\n")
		line, _ := bufio.NewReader(conn).ReadString('\n')
		return line != ""
	})
}

func (s *redisServer) kill() {
	_ = s.cmd.Process.Kill()
	_ = s.cmd.Wait()
}

// useRedis returns the counter of a server and its log entries.
func useRedis(t testing.TB, url string) (*redisCounter, *observer.ObservedLogs) {
	t.Helper()
	c, err := acquireRedis(url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := releaseRedis(url); err != nil {
			t.Error(err)
		}
	})
	core, logs := observer.New(zap.InfoLevel)
	c.logger = zap.New(core)
	return c, logs
}

const patient = 10 * time.Second // timeout for a busy machine

func mustTake(t testing.TB, c *redisCounter, key string, cost int64, limits ...limit) decision {
	t.Helper()
	d, err := c.ask(patient, key, cost, limits)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestRedisAdmitsExactlyTheLimit(t *testing.T) {
	server := startRedis(t)
	c, _ := useRedis(t, "redis://"+server.address())
	few, many := limit{2, time.Hour}, limit{5, 24 * time.Hour}
	for i, want := range []decision{{true, few, 1, 0}, {true, few, 0, 0}, {false, few, 0, 0}} {
		got := mustTake(t, c, "a", 1, few, many)
		if left := got.after; left > time.Hour || left < 59*time.Minute {
			t.Errorf("request %d: it must wait %v", i+1, left)
		}
		if got.after = 0; got != want {
			t.Errorf("request %d: got %+v, want %+v", i+1, got, want)
		}
	}
	if d := mustTake(t, c, "b", 5, many); !d.admitted || d.remaining != 0 {
		t.Errorf("another key: %+v", d)
	}
	if d := mustTake(t, c, "a", 4, many); d.admitted || d.remaining != 3 {
		t.Errorf("what was refused has counted: %+v", d)
	}
	client := redis.NewClient(&redis.Options{Addr: server.address()})
	defer client.Close()
	keys, err := client.Keys(context.Background(), "*").Result()
	if err != nil || len(keys) != 3 {
		t.Errorf("there are the keys %q, %v", keys, err)
	}
	for _, key := range keys {
		if ttl := client.TTL(context.Background(), key).Val(); ttl < time.Hour || ttl > 48*time.Hour {
			t.Errorf("%s lives %v", key, ttl)
		}
		if !strings.HasPrefix(key, "rgate:{") {
			t.Errorf("the key %s is not one of rgate's", key)
		}
	}
	// Values that are not counters are ignored.
	for _, key := range keys {
		client.Set(context.Background(), key, "nonsense", 0)
	}
	if d := mustTake(t, c, "a", 1, few, many); !d.admitted || d.remaining != 1 {
		t.Errorf("after nonsense: %+v", d)
	}
}

// TestScriptKeepsTheDefinition compares the script with the limiter for random times and
// costs.
func TestScriptKeepsTheDefinition(t *testing.T) {
	server := startRedis(t)
	client := redis.NewClient(&redis.Options{Addr: server.address()})
	defer client.Close()
	timed := redis.NewScript(strings.Replace(scriptSource, "redis.call('TIME')", "{ARGV[#ARGV - 1], ARGV[#ARGV]}", 1))
	random := rand.New(rand.NewPCG(3, 4))
	for round := range 100 {
		limits := []limit{
			{1 + random.Int64N(50), time.Duration(1+random.Int64N(4_000)) * time.Millisecond},
			{1 + random.Int64N(80), time.Duration(1+random.Int64N(4_000_000)) * time.Microsecond},
		}[:1+random.IntN(2)]
		l := newLimiter(minMaxKeys)
		now := time.Duration(random.Int64N(int64(time.Hour))).Truncate(time.Microsecond)
		for range 60 {
			if random.IntN(4) > 0 {
				now += time.Duration(random.Int64N(1 + int64(limits[0].window)/(1+random.Int64N(100)))).Truncate(time.Microsecond)
			}
			cost := 1 + random.Int64N(3)
			keys, args := scriptInput(strconv.Itoa(round), cost, limits)
			args = append(args, int64(now/time.Second), int64(now%time.Second/time.Microsecond))
			reply, err := timed.Run(context.Background(), client, keys, args...).Int64Slice()
			if err != nil {
				t.Fatal(err)
			}
			got, err := readReply(reply, cost, limits)
			if want := l.take(now, 1, cost, limits...); err != nil || got != want {
				t.Fatalf("%v at %v, cost %d: got %+v, %v, want %+v", limits, now, cost, got, err, want)
			}
		}
	}
}

func TestTwoGatewaysShareALimit(t *testing.T) {
	server := startRedis(t)
	one, _ := useRedis(t, "redis://"+server.address())
	two, _ := useRedis(t, "redis://"+server.address()+"/0") // a separate client
	if one == two {
		t.Fatal("there is one client")
	}
	var admitted, failed atomic.Int64
	var clients sync.WaitGroup
	for i := range 8 {
		clients.Go(func() {
			for range 250 {
				d, err := []*redisCounter{one, two}[i%2].ask(patient, "key", 1, []limit{{1000, time.Hour}, {1500, 2 * time.Hour}})
				if err != nil {
					failed.Add(1)
				}
				if d.admitted {
					admitted.Add(1)
				}
			}
		})
	}
	clients.Wait()
	if admitted.Load() != 1000 || failed.Load() != 0 {
		t.Errorf("%d requests are admitted, want 1000; %d failed", admitted.Load(), failed.Load())
	}
}

func TestRedisGoesAwayAndComesBack(t *testing.T) {
	server := startRedis(t)
	c, logs := useRedis(t, "redis://"+server.address())
	limits := []limit{documented}
	if _, ok := c.take(patient, "key", 1, limits); !ok {
		t.Fatal("redis does not respond")
	}
	for round := 1; round <= 2; round++ {
		server.kill()
		for range 100 {
			if _, ok := c.take(patient, "key", 1, limits); ok {
				t.Fatal("a stopped server responds")
			}
		}
		if errors := c.errors.Load(); errors != uint64(round*failuresUntilDown) {
			t.Errorf("%d requests were sent to a server that is gone, want %d", errors, round*failuresUntilDown)
		}
		if state := c.state(); state.Up || state.Name != "redis "+server.address() || !strings.Contains(state.Error, "refused") {
			t.Errorf("its state is %+v", state)
		}
		if local := c.local.Load(); local != uint64(round*100) {
			t.Errorf("%d requests were decided without it, want %d", local, round*100)
		}
		server.start(t)
		testkit.Eventually(t, "redis is used again", func() bool {
			_, ok := c.take(patient, "key", 1, limits)
			return ok
		})
		c.local.Store(uint64(round * 100)) // different timing in each round
		if state := c.state(); !state.Up || state.Error != "" {
			t.Errorf("its state is %+v", state)
		}
		if got := logs.Len(); got != 2*round {
			t.Errorf("there are %d lines in the log: %v", got, logs.All())
		}
	}
}

// TestSilentRedisIsLeftAlone checks that a server that accepts connections but does not
// respond delays requests by at most the timeout, and only briefly.
func TestSilentRedisIsLeftAlone(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	c, logs := useRedis(t, "redis://:secret@"+listener.Addr().String())
	for range failuresUntilDown {
		if _, ok := c.take(time.Millisecond, "key", 1, []limit{documented}); ok {
			t.Error("it has responded")
		}
	}
	if !c.away.Load() {
		t.Error("it is not away")
	}
	for _, line := range logs.All() {
		if text := fmt.Sprint(line); strings.Contains(text, "secret") {
			t.Errorf("the log has the password: %s", text)
		}
	}
}

func TestRedisCluster(t *testing.T) {
	server := startRedis(t, "--cluster-enabled", "yes")
	client := redis.NewClient(&redis.Options{Addr: server.address()})
	defer client.Close()
	if err := client.ClusterAddSlotsRange(context.Background(), 0, 16383).Err(); err != nil {
		t.Fatal(err)
	}
	testkit.Eventually(t, "the cluster is up", func() bool {
		return strings.Contains(client.ClusterInfo(context.Background()).Val(), "cluster_state:ok")
	})
	c, _ := useRedis(t, "redis://"+server.address()+"?addr="+server.address())
	for key := range 20 { // on any node of the cluster
		for i, want := range []bool{true, true, false} {
			if d := mustTake(t, c, strconv.Itoa(key), 1, limit{2, time.Hour}, limit{3, 2 * time.Hour}); d.admitted != want {
				t.Errorf("key %d, request %d: %+v", key, i+1, d)
			}
		}
	}
}

func TestRedisSentinel(t *testing.T) {
	server := startRedis(t)
	config := filepath.Join(t.TempDir(), "sentinel.conf")
	monitor := fmt.Sprintf("sentinel monitor main 127.0.0.1 %d 1\n", server.port)
	if err := os.WriteFile(config, []byte(monitor), 0o600); err != nil {
		t.Fatal(err)
	}
	sentinel := startRedis(t, config, "--sentinel")
	c, _ := useRedis(t, "redis://"+sentinel.address()+"?master_name=main")
	for i, want := range []bool{true, true, false} {
		if d := mustTake(t, c, "key", 1, limit{2, time.Hour}); d.admitted != want {
			t.Errorf("request %d: %+v", i+1, d)
		}
	}
}

func TestRedisPasswordFromAPlaceholder(t *testing.T) {
	const password = "p@ss/w:rd {1} %41+ ?#"
	server := startRedis(t, "--requirepass", password)
	t.Setenv("RATE_REDIS_PASSWORD", password)
	t.Setenv("RATE_REDIS_ADDRESS", server.address())
	url, err := fillRedisURL("redis://:{env.RATE_REDIS_PASSWORD}@{env.RATE_REDIS_ADDRESS}/0")
	if err != nil {
		t.Fatal(err)
	}
	c, _ := useRedis(t, url)
	if d := mustTake(t, c, "key", 1, documented); !d.admitted {
		t.Errorf("got %+v", d)
	}
	if c.server != server.address() {
		t.Errorf("the server is called %q", c.server)
	}
}

func BenchmarkRedis(b *testing.B) {
	server := startRedis(b)
	c, _ := useRedis(b, "redis://"+server.address())
	b.Run("one after the other", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			mustTake(b, c, "key", 1, documented)
		}
	})
	b.Run("parallel", func(b *testing.B) {
		b.ReportAllocs()
		b.SetParallelism(16)
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				mustTake(b, c, "key", 1, documented)
			}
		})
	})
}
