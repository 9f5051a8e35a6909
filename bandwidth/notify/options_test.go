package notify

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
)

func TestOptions(t *testing.T) {
	smtp := func(change func(*SMTP)) *SMTP {
		o := &SMTP{Address: "mail.example.com", From: "a@example.com", To: []string{"b@example.com"}}
		change(o)
		return o
	}
	for _, c := range []struct {
		options     interface{ Check() error }
		field, want string
	}{
		{&Webhook{}, "webhook.url", "url is required"},
		{&Webhook{URL: "ftp://s3cret/"}, "webhook.url", "must be a URL such as https://hooks.example.com/quota"},
		{&Webhook{URL: "https://a.example/", Headers: map[string]string{"A B": "c"}}, "webhook.headers.A B", "must be a name such as Authorization, and a value without control characters"},
		{&Webhook{URL: "https://a.example/", Timeout: caddy.Duration(time.Hour)}, "webhook.timeout", "must be 1s to 5m"},
		{smtp(func(o *SMTP) { o.Address = "" }), "smtp.address", "address is required"},
		{smtp(func(o *SMTP) { o.Address = "mail.example.com:99999" }), "smtp.address", "mail.example.com:587"},
		{smtp(func(o *SMTP) { o.Address = "mail.example.com:" }), "smtp.address", "mail.example.com:587"},
		{smtp(func(o *SMTP) { o.Address = "smtp://mail.example.com" }), "smtp.address", "mail.example.com:587"},
		{smtp(func(o *SMTP) { o.TLS = "ssl" }), "smtp.tls", "use starttls, implicit or none"},
		{smtp(func(o *SMTP) { o.Username = "a" }), "smtp.password", "username requires password"},
		{smtp(func(o *SMTP) { o.Password = "a" }), "smtp.username", "password requires username"},
		{smtp(func(o *SMTP) { o.TLS, o.Username, o.Password = tlsNone, "a", "b" }), "smtp.tls", "in plain text"},
		{smtp(func(o *SMTP) { o.From = "" }), "smtp.from", "from is required"},
		{smtp(func(o *SMTP) { o.From = "nobody" }), "smtp.from", "rgate@example.com"},
		{smtp(func(o *SMTP) { o.To = nil }), "smtp.to", "to is required"},
		{smtp(func(o *SMTP) { o.To = []string{"a@example.com", "ü@example.com"} }), "smtp.to[1]", "ops@example.com"},
		{smtp(func(o *SMTP) { o.Timeout = 1 }), "smtp.timeout", "must be 1s to 5m"},
	} {
		err := c.options.Check()
		var field interface{ Field() string }
		if err == nil || !strings.Contains(err.Error(), c.want) || !errors.As(err, &field) || field.Field() != c.field || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%+v: got %v, want %q at %s", c.options, err, c.want, c.field)
		}
	}
	for tls, port := range map[string]string{"": "587", tlsStart: "587", tlsImplicit: "465", tlsNone: "25"} {
		for _, host := range []string{"mail.example.com", "2001:db8::1", "[2001:db8::1]"} {
			o := smtp(func(o *SMTP) { o.TLS, o.Address = tls, host })
			if err := o.Check(); err != nil {
				t.Errorf("%s, %s: %v", tls, host, err)
			} else if m, err := o.mailer(); err != nil || !strings.HasSuffix(m.address, ":"+port) {
				t.Errorf("%s, %s: got %+v, %v", tls, host, m, err)
			}
		}
	}
}

// Errors about placeholders must not quote secrets.
func TestPlaceholders(t *testing.T) {
	t.Setenv("RGATE_TEST_PASSWORD", "s3cret")
	o := &SMTP{Address: "127.0.0.1", Username: "a", Password: "{env.RGATE_TEST_PASSWORD}", From: "a@example.com", To: []string{"b@example.com"}}
	if m, err := o.mailer(); err != nil || m.password != "s3cret" {
		t.Errorf("got %v", err)
	}
	o.Password = "{env.RGATE_TEST_PASSWORD}{env.RGATE_TEST_NOTHING}"
	if _, err := o.mailer(); err == nil || strings.Contains(err.Error(), "s3cret") {
		t.Errorf("got %v", err)
	}
	h := &Webhook{URL: "{env.RGATE_TEST_PASSWORD}"}
	if _, err := h.hook(); err == nil || strings.Contains(err.Error(), "s3cret") {
		t.Errorf("got %v", err)
	}
}

func TestWebhookIsAURLOrAMap(t *testing.T) {
	for text, want := range map[string]string{
		`"https://a.example/"`: "https://a.example/", `{"url": "https://a.example/", "timeout": "5s"}`: "https://a.example/",
		`{"ulr": "https://a.example/"}`: "", `7`: "", `["https://a.example/"]`: "",
	} {
		var o Webhook
		if err := json.Unmarshal([]byte(text), &o); (err != nil) != (want == "") || err == nil && o.URL != want {
			t.Errorf("%s: got %+v, %v", text, o, err)
		}
	}
}
