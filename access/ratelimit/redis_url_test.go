package ratelimit

import (
	"strings"
	"testing"
	"time"
)

func TestRedisURLs(t *testing.T) {
	for url, want := range map[string]string{
		"redis://127.0.0.1:6379/0":                                           "single 127.0.0.1:6379",
		"rediss://user:secret@cache.example.com":                             "single cache.example.com",
		"redis://:secret@[::1]:6380/2?pool_size=5&read_timeout=1s":           "single [::1]:6380",
		"unix:///run/redis.sock?db=1":                                        "single /run/redis.sock",
		"redis://10.0.0.1:26379?master_name=main&addr=10.0.0.2:26379":        "sentinel 10.0.0.1:26379",
		"rediss://user:secret@10.0.0.1:6379?addr=10.0.0.2:6379&addr=c.x:123": "cluster 10.0.0.1:6379",
	} {
		o, err := parseRedisURL(url)
		if err != nil {
			t.Errorf("%s: %v", url, err)
			continue
		}
		got := "single "
		if o.sentinel != nil {
			got = "sentinel "
		} else if o.cluster != nil {
			got = "cluster "
		}
		if got += o.server; got != want {
			t.Errorf("%s: got %s, want %s", url, got, want)
		}
		if err := o.newClient().Close(); err != nil {
			t.Errorf("%s: closing: %v", url, err)
		}
	}
	for url, want := range map[string]string{
		"":                         "invalid redis: must be a URL",
		"127.0.0.1:6379":           "invalid redis: must be a URL",
		"http://127.0.0.1:6379":    "invalid redis: must be a URL",
		"redis://:secret@host:x":   "invalid redis: must be a URL",
		"redis://:secret@host/abc": `invalid database number: "abc"`,
		"redis://:secret@host?pol_size=5&password=secret":       "pol_size",
		"redis://:secret@host?master_name=x&read_timeout=never": "read_timeout",
		"unix://host?addr=a":                "invalid URL scheme",
		"redis://:secret@host?pool_size=%g": "",
	} {
		_, err := parseRedisURL(url)
		if err == nil {
			if want != "" {
				t.Errorf("%q is taken", url)
			}
			continue
		}
		if !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), ":secret") {
			t.Errorf("%q: got %v, want %s", url, err, want)
		}
	}
}

func TestRedisURLsDoNotTryAgain(t *testing.T) {
	o, err := parseRedisURL("redis://127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	_ = o.newClient().Close()
	if o.single.MaxRetries != -1 || o.single.DialerRetries != 1 || o.single.DialTimeout != time.Second {
		t.Errorf("got %+v", o.single)
	}
	if o, err = parseRedisURL("redis://127.0.0.1?max_retries=2&dial_timeout=7s"); err != nil {
		t.Fatal(err)
	}
	_ = o.newClient().Close()
	if o.single.MaxRetries != 2 || o.single.DialTimeout != 7*time.Second {
		t.Errorf("got %+v", o.single)
	}
}

func TestRedisURLsAreFilledIn(t *testing.T) {
	t.Setenv("RATE_URL", "redis://:a@b@host:1")
	t.Setenv("RATE_EMPTY", "")
	if got, err := fillRedisURL("{env.RATE_URL}"); err != nil || got != "redis://:a@b@host:1" {
		t.Errorf("got %q, %v", got, err)
	}
	for _, url := range []string{"redis://:{env.RATE_EMPTY}@host", "redis://{env.RATE_EMPTY}", "redis://{nonsense}"} {
		if got, err := fillRedisURL(url); err == nil {
			t.Errorf("%s: got %q", url, got)
		}
	}
}

// FuzzRedisURL checks that no URL causes a panic, and that errors contain no password.
func FuzzRedisURL(f *testing.F) {
	for _, seed := range []string{
		"redis://127.0.0.1:6379/0", "rediss://u:secret@h?addr=a:1", "redis://:secret@h?master_name=m&db=x", "unix://u:secret@/p?db=1",
		"redis://:secret@[::1", "redis://h/1?pool_size=-1&conn_max_lifetime=5", "redis://:%73@h",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		o, err := parseRedisURL(text)
		if err != nil {
			if text != "" && !strings.HasPrefix(strings.TrimPrefix(err.Error(), "invalid "), "redis") {
				t.Errorf("%q: %v", text, err)
			}
			return
		}
		if n := btoi(o.single != nil) + btoi(o.sentinel != nil) + btoi(o.cluster != nil); n != 1 {
			t.Errorf("%q is %d things", text, n)
		}
	})
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}
