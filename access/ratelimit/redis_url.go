package ratelimit

import (
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
)

// redisOptions holds the options of a Redis client: single server, sentinel or cluster.
type redisOptions struct {
	server   string // address without credentials
	single   *redis.Options
	sentinel *redis.FailoverOptions
	cluster  *redis.ClusterOptions
}

var errRedisURL = errors.New("invalid redis: must be a URL such as redis://127.0.0.1:6379/0, rediss://… with TLS, " +
	"redis://sentinel:26379?master_name=NAME or redis://node:6379?addr=NODE:6379")

// parseRedisURL parses a URL without placeholders. Errors do not contain the URL, because
// it can contain a password.
func parseRedisURL(text string) (o redisOptions, err error) {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "redis" && u.Scheme != "rediss" && u.Scheme != "unix" {
		return o, errRedisURL
	}
	if port := u.Port(); port != "" {
		if _, err := strconv.ParseUint(port, 10, 16); err != nil {
			return o, fmt.Errorf("invalid redis port %s: must be at most 65535", port)
		}
	}
	query := u.Query()
	o.server = u.Host
	switch {
	case query.Has("master_name"):
		o.sentinel, err = redis.ParseFailoverURL(text)
	case query.Has("addr"):
		o.cluster, err = redis.ParseClusterURL(text)
	default:
		if u.Scheme == "unix" {
			o.server = u.Path
		}
		o.single, err = redis.ParseURL(text)
	}
	if err != nil {
		return o, fmt.Errorf("invalid redis: %s: see the documentation of go-redis for supported URLs", strings.TrimPrefix(withoutURL(err), "redis: "))
	}
	return o, nil
}

// withoutURL returns the error message without the URL.
func withoutURL(err error) string {
	var whole *url.Error
	if errors.As(err, &whole) {
		return whole.Err.Error()
	}
	return err.Error()
}

// newClient returns a client that connects on first use. It does not retry unless the URL
// enables retries.
func (o redisOptions) newClient() redis.UniversalClient {
	quiet := &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}
	switch {
	case o.sentinel != nil:
		c := o.sentinel
		c.ContextTimeoutEnabled = true
		setFastDefaults(&c.MaxRetries, &c.DialerRetries, &c.DialTimeout)
		return redis.NewFailoverClient(c)
	case o.cluster != nil:
		c := o.cluster
		c.ContextTimeoutEnabled, c.MaintNotificationsConfig = true, quiet
		setFastDefaults(&c.MaxRetries, &c.DialerRetries, &c.DialTimeout)
		return redis.NewClusterClient(c)
	}
	c := o.single
	c.ContextTimeoutEnabled, c.MaintNotificationsConfig = true, quiet
	setFastDefaults(&c.MaxRetries, &c.DialerRetries, &c.DialTimeout)
	return redis.NewClient(c)
}

func setFastDefaults(retries, dials *int, dialTimeout *time.Duration) {
	if *retries == 0 {
		*retries = -1 // disables retries
	}
	if *dials == 0 {
		*dials = 1
	}
	if *dialTimeout == 0 {
		*dialTimeout = time.Second
	}
}

// fillRedisURL replaces placeholders. It escapes the values of the user and the password,
// which can contain any characters.
func fillRedisURL(text string) (string, error) {
	repl := caddy.NewReplacer()
	at := strings.LastIndexByte(text, '@')
	credentials, err := repl.ReplaceFunc(text[:at+1], func(name string, value any) (any, error) {
		if caddy.ToString(value) == "" {
			return nil, fmt.Errorf("the placeholder {%s} in redis is unknown or empty: set its value or remove it", name)
		}
		return strings.ReplaceAll(url.QueryEscape(caddy.ToString(value)), "+", "%20"), nil
	})
	if err != nil {
		return "", err
	}
	rest, err := repl.ReplaceOrErr(text[at+1:], true, true)
	if err != nil {
		return "", fmt.Errorf("replacing the placeholders in redis: %w", err)
	}
	return credentials + rest, nil
}
