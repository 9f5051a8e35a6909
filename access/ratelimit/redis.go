package ratelimit

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/redis/go-redis/v9"
	"go.uber.org/zap"

	"github.com/rgate/rgate/internal/status"
)

// script implements limiter.take in Redis for all limits of a request. It uses the clock
// of the Redis server, because the clocks of gateways can differ. Times are in
// microseconds, which Lua numbers represent exactly.
//
// KEYS contains a key for each limit. Its value contains the start of the window and, for
// this window and the previous one, the total cost and the time of the last request. ARGV
// contains the cost, the requests and the window of each limit, and `peek` if the request
// is not counted. The reply contains whether the request is admitted and, for each limit,
// the age of the window and the four numbers before the request.
var script = redis.NewScript(scriptSource)

const scriptSource = `
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local cost = tonumber(ARGV[1])
local counters, reply = {}, {1}
for i, key in ipairs(KEYS) do
	local requests, window = tonumber(ARGV[2 * i]), tonumber(ARGV[2 * i + 1])
	local begin, count, last, count1, last1 = now, 0, 0, 0, 0
	local s = {}
	for number in string.gmatch(redis.call('GET', key) or '', '%d+') do
		s[#s + 1] = tonumber(number)
	end
	if #s == 5 then
		local age = now - s[1]
		if age < window and age > -window then
			begin, count, last, count1, last1 = s[1], s[2], s[3], s[4], s[5]
		elseif age >= window and age < 2 * window then
			begin, count1, last1 = s[1] + window, s[2], s[3]
		end
	end
	local elapsed, left = math.max(0, now - begin), 0
	if elapsed < last1 then
		left = math.ceil(count1 * (last1 - elapsed) / last1)
	end
	if count + left + cost > requests then
		reply[1] = 0
	end
	counters[i] = {begin, count + cost, math.max(last, elapsed), count1, last1}
	for _, number in ipairs({elapsed, count, last, count1, last1}) do
		reply[#reply + 1] = number
	end
end
if reply[1] == 1 and ARGV[2 * #KEYS + 2] ~= 'peek' then
	for i, key in ipairs(KEYS) do
		local ttl = math.ceil((counters[i][1] + 2 * ARGV[2 * i + 1] - now) / 1000)
		redis.call('SET', key, string.format('%.0f %.0f %.0f %.0f %.0f', unpack(counters[i])), 'PX', string.format('%.0f', ttl))
	end
end
return reply
`

const (
	failuresUntilDown = 3
	probeInterval     = time.Second
)

// redisCounter counts requests in a Redis server that several gateways share. After a few
// consecutive failures it is marked as away, and requests bypass it until a probe
// succeeds.
type redisCounter struct {
	client redis.UniversalClient
	server string // address without credentials
	logger *zap.Logger

	failures atomic.Int32 // number of consecutive failures
	away     atomic.Bool
	trouble  atomic.Pointer[string] // reason why it is away
	errors   atomic.Uint64
	local    atomic.Uint64 // requests that were counted in memory instead

	ctx     context.Context // canceled when the counter is released
	cancel  context.CancelFunc
	publish func() // stops publishing the state

	mu      sync.Mutex     // held to cancel ctx, and to start a probe unless ctx is canceled
	probing sync.WaitGroup // Guarded by mu.
}

// redises holds the Redis counters of the process by URL. They survive reloads.
var redises = caddy.NewUsagePool()

// acquireRedis returns the counter of a server without connecting. The caller must
// release it.
func acquireRedis(url string) (*redisCounter, error) {
	c, _, err := redises.LoadOrNew(url, func() (caddy.Destructor, error) {
		options, err := parseRedisURL(url)
		if err != nil {
			return nil, err
		}
		redis.SetLogger(noRedisLog{})
		// The counter can outlive the configuration, so do not use the configuration's
		// logger.
		c := &redisCounter{client: options.newClient(), server: options.server, logger: caddy.Log().Named("http.handlers.rgate_rate_limit")}
		c.ctx, c.cancel = context.WithCancel(context.Background())
		c.publish = status.Dependencies.Publish(status.Process{}, c.state)
		return c, nil
	})
	if err != nil {
		return nil, err
	}
	return c.(*redisCounter), nil
}

func releaseRedis(url string) error {
	_, err := redises.Delete(url)
	return err
}

// Destruct implements caddy.Destructor.
func (c *redisCounter) Destruct() error {
	c.publish()
	c.mu.Lock()
	c.cancel()
	c.mu.Unlock()
	c.probing.Wait()
	return c.client.Close()
}

// state returns the state for status reports.
func (c *redisCounter) state() status.Dependency {
	d := status.Dependency{Name: "redis " + c.server, Up: !c.away.Load()}
	if trouble := c.trouble.Load(); trouble != nil && !d.Up {
		d.Error = *trouble
	}
	return d
}

// noRedisLog discards the log of the Redis client. Errors are logged and counted by
// redisCounter.
type noRedisLog struct{}

func (noRedisLog) Printf(context.Context, string, ...any) {}

// take counts a request if it is within its limits. ok is false if Redis failed or timed
// out.
func (c *redisCounter) take(budget time.Duration, key string, cost int64, limits []limit) (d decision, ok bool) {
	return c.try(budget, key, cost, limits)
}

// peek is like take but does not count the request.
func (c *redisCounter) peek(budget time.Duration, key string, cost int64, limits []limit) (d decision, ok bool) {
	return c.try(budget, key, cost, limits, "peek")
}

func (c *redisCounter) try(budget time.Duration, key string, cost int64, limits []limit, more ...any) (d decision, ok bool) {
	if c.away.Load() {
		c.local.Add(1)
		return decision{}, false
	}
	d, err := c.ask(budget, key, cost, limits, more...)
	if err != nil {
		c.local.Add(1)
		c.failed(err, budget)
		return decision{}, false
	}
	if c.failures.Load() != 0 {
		c.failures.Store(0)
	}
	return d, true
}

func (c *redisCounter) ask(budget time.Duration, key string, cost int64, limits []limit, more ...any) (decision, error) {
	ctx, cancel := context.WithTimeout(c.ctx, budget)
	defer cancel()
	keys, args := scriptInput(key, cost, limits)
	reply, err := script.Run(ctx, c.client, keys, append(args, more...)...).Int64Slice()
	if err != nil {
		return decision{}, err
	}
	return readReply(reply, cost, limits)
}

// scriptInput returns the keys and arguments of the script. A cluster hashes only the
// part of a key in braces, so that all limits of a request are on one node. The rate
// limit key is sent as a hash, because it can be a secret.
func scriptInput(key string, cost int64, limits []limit) (keys []string, args []any) {
	hash := sha256.Sum256([]byte(key))
	place := "rgate:{" + hex.EncodeToString(hash[:16]) + "}:"
	keys, args = make([]string, len(limits)), make([]any, 1, 1+2*len(limits))
	args[0] = cost
	for i, l := range limits {
		window := l.window.Microseconds()
		keys[i] = place + strconv.FormatInt(window, 10)
		args = append(args, l.requests, window)
	}
	return keys, args
}

func readReply(reply []int64, cost int64, limits []limit) (d decision, err error) {
	if len(reply) != 1+5*len(limits) {
		return decision{}, fmt.Errorf("unexpected reply of the redis script: %d numbers", len(reply))
	}
	for i, l := range limits {
		of := reply[1+5*i:]
		elapsed := time.Duration(of[0]) * time.Microsecond
		one := l.judge(&counter{current: readBucket(of[1:]), previous: readBucket(of[3:])}, elapsed, cost)
		if i == 0 {
			d = one
		} else {
			d = d.and(one)
		}
	}
	d.admitted = reply[0] == 1 // above 2^53, Lua rounds
	return d, nil
}

func readBucket(of []int64) bucket {
	return bucket{uint32(of[0]), time.Duration(of[1]) * time.Microsecond}
}

// failed counts a failure. After a few consecutive failures, Redis is marked as away
// until a probe succeeds in time.
func (c *redisCounter) failed(err error, budget time.Duration) {
	if c.ctx.Err() != nil { // the counter has been released
		return
	}
	c.errors.Add(1)
	if c.failures.Add(1) < failuresUntilDown || !c.away.CompareAndSwap(false, true) {
		return
	}
	trouble := err.Error()
	c.trouble.Store(&trouble)
	c.logger.Warn("redis is unavailable, counting requests in this gateway",
		zap.String("redis", c.server), zap.Error(err))
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ctx.Err() == nil {
		c.probing.Go(func() { c.probe(budget) })
	}
}

// probe writes to Redis every second until a write succeeds, and then marks it as
// available.
func (c *redisCounter) probe(budget time.Duration) {
	since := time.Now()
	ticker := time.NewTicker(probeInterval)
	defer ticker.Stop()
	for {
		select {
		case <-c.ctx.Done():
			return
		case <-ticker.C:
		}
		if _, err := c.ask(budget, "probe", 1, []limit{{maxRequests, time.Second}}); err != nil {
			continue
		}
		c.logger.Info("redis is available again, counting requests in redis",
			zap.String("redis", c.server), zap.Duration("away", time.Since(since)))
		c.failures.Store(0)
		c.away.Store(false)
		return
	}
}
