package notify

import (
	"strings"
	"testing"

	"github.com/rgate/rgate/bandwidth/mailtest"
)

func openChannels(t testing.TB, smtp *SMTP, webhook *Webhook, link string) *Channels {
	t.Helper()
	channels, err := Open(smtp, webhook, link)
	if err != nil {
		t.Fatal(err)
	}
	return channels
}

func TestSendTest(t *testing.T) {
	server, hook := mailtest.Start(t), startWebhook(t)
	options := mailOptions(server)
	webhook := &Webhook{URL: hook.URL}
	var out strings.Builder
	if err := openChannels(t, options, webhook, "https://gw.example.com/").SendTest(t.Context(), &out); err != nil {
		t.Fatalf("%v\n%s", err, &out)
	}
	for _, want := range []string{"mail " + server.Address, "connection ", "greeting ", "STARTTLS        TLS 1.3, certificate valid until 20", "authentication  as rgate by PLAIN",
		"sender          rgate@example.com", "recipient       ops@example.com", "message ", "webhook 127.0.0.1", "request         accepted"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the output lacks %q:\n%s", want, &out)
		}
	}
	server.MustHave(t, "afterwards", "[rgate] This is a test of rgate's messages about quotas")
	if bodies := hook.bodies(); len(bodies) != 1 || !strings.Contains(bodies[0], `"event":"test"`) {
		t.Errorf("the webhook got %q", bodies)
	}

	out.Reset()
	options.Password = "wrong"
	err := openChannels(t, options, webhook, "").SendTest(t.Context(), &out)
	if err == nil || !strings.HasSuffix(err.Error(), ": check username and password") || !strings.Contains(out.String(), "FAILED          authentication as rgate: 535") {
		t.Errorf("a wrong password: %v\n%s", err, &out)
	}
	if n := len(hook.bodies()); n != 2 {
		t.Errorf("the webhook got %d messages, want 2: the failure of a channel does not stop the next one", n)
	}

	options.CAFile = ""
	for want, smtp := range map[string]*SMTP{
		"set ca_file":                            options,
		"that no firewall blocks the connection": {Address: "127.0.0.1:1", From: "a@example.com", To: []string{"b@example.com"}},
	} {
		if err := openChannels(t, smtp, nil, "").SendTest(t.Context(), &out); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}
