package notify

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/rgate/rgate/bandwidth/mailtest"
)

// mailOptions returns the options for a test server.
func mailOptions(s *mailtest.Server) *SMTP {
	return &SMTP{
		Address: s.Address, CAFile: s.CAFile, Username: mailtest.User, Password: mailtest.Password,
		From: "Gateway <rgate@example.com>", To: []string{"ops@example.com"}, Timeout: caddy.Duration(5 * time.Second),
	}
}

func mailerFor(t testing.TB, options *SMTP) *mailer {
	t.Helper()
	if err := options.Check(); err != nil {
		t.Fatal(err)
	}
	m, err := options.mailer()
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func sampleAlert() Alert {
	zone, _ := time.LoadLocation("Europe/Berlin")
	start := time.Date(2026, 11, 1, 0, 0, 0, 0, zone)
	end := start.AddDate(0, 1, 0)
	now := time.Date(2026, 11, 20, 12, 0, 0, 0, zone)
	return Alert{
		ID: "0123456789abcdef", Event: EventThreshold, Gateway: "rgate", Name: "payment", Level: "backend", Service: "payment",
		Direction: "egress", Threshold: 80, Crossed: []int{80}, Used: 8_000_000_000, Allocated: 10_000_000_000, Share: 80,
		Period:   Period{"November 2026", start, end, "Europe/Berlin"},
		Forecast: Forecast{AtEnd: new(int64(12_307_692_307)), FullAt: new(time.Date(2026, 11, 25, 9, 0, 0, 0, zone))}, AtLimit: "block", At: now,
	}
}

func TestMail(t *testing.T) {
	for name, start := range map[string]func(testing.TB) *mailtest.Server{tlsStart: mailtest.Start, tlsImplicit: mailtest.StartImplicit} {
		server := start(t)
		options := mailOptions(server)
		options.TLS = name
		options.To = append(options.To, "Boss <boss@example.com>")
		m := mailerFor(t, options)
		n := sampleAlert()
		delivered, err := m.send(t.Context(), n.ID, n.At, n.mail("https://gw.example.com/dashboard"), nil)
		if err != nil || !slices.Equal(delivered, []string{"ops@example.com", "boss@example.com"}) {
			t.Fatalf("%s: got %v, %v", name, delivered, err)
		}
		messages := server.Messages()
		if len(messages) != 1 {
			t.Fatalf("%s: %d messages", name, len(messages))
		}
		got := messages[0]
		if !got.TLS || got.User != mailtest.User || got.From != "rgate@example.com" || !slices.Equal(got.To, delivered) {
			t.Errorf("%s: got %+v", name, got)
		}
		for field, want := range map[string]string{
			"Message-Id": "<rgate.0123456789abcdef@example.com>", "Date": "Fri, 20 Nov 2026 12:00:00 +0100", "Auto-Submitted": "auto-generated",
			"From": `"Gateway" <rgate@example.com>`, "To": `<ops@example.com>, "Boss" <boss@example.com>`, "User-Agent": "", "X-Mailer": "",
		} {
			if got := got.Header.Get(field); got != want {
				t.Errorf("%s: %s is %q, want %q", name, field, got, want)
			}
		}
		if got.Subject != "[rgate] payment has used 80.0 % of its egress for November 2026" {
			t.Errorf("%s: the subject is %q", name, got.Subject)
		}
		for _, want := range []string{"8.00 GB (8000000000 bytes)", "10.0 GB (10000000000 bytes)", "80.0 %", "November 2026: 1 November 2026 00:00 to 1 December 2026 00:00 (Europe/Berlin)",
			"12.3 GB by the end (123.0 %), used up on 25 November 2026 09:00", "https://gw.example.com/dashboard", "requests are refused until the period ends"} {
			if !strings.Contains(got.Plain, want) {
				t.Errorf("%s: the plain part lacks %q:\n%s", name, want, got.Plain)
			}
			if !strings.Contains(got.HTML, want) {
				t.Errorf("%s: the HTML part lacks %q:\n%s", name, want, got.HTML)
			}
		}
	}
}

// Consumer names may come from tokens.
func TestMailIsNotInjected(t *testing.T) {
	server := mailtest.Start(t)
	n := sampleAlert()
	n.Consumer = "<b>x</b>\r\nBcc: all@example.com\r\n\r\nbody"
	if _, err := mailerFor(t, mailOptions(server)).send(t.Context(), n.ID, n.At, n.mail(""), nil); err != nil {
		t.Fatal(err)
	}
	got := server.Messages()[0]
	if got.Header.Get("Bcc") != "" || strings.Contains(got.HTML, "<b>x") || strings.Contains(got.Plain, "\nBcc") {
		t.Errorf("got %s", got.Undecoded)
	}
	if body := string(n.webhookBody("")); !strings.Contains(body, `&lt;b&gt;x`) && !strings.Contains(body, `\u0026lt;b`) {
		t.Errorf("the webhook gets %s", body)
	}
}

func TestMailFailures(t *testing.T) {
	for _, c := range []struct {
		what      string
		prepare   func(*mailtest.Server, *SMTP)
		want      string
		permanent bool
		delivered []string
	}{
		{"a busy server", func(s *mailtest.Server, _ *SMTP) { s.Reply("DATA", 451, 1) }, "message: 451", false, nil},
		{"a rejected message", func(s *mailtest.Server, _ *SMTP) { s.Reply("DATA", 554, 1) }, "message: 554", true, nil},
		{"a sender for later", func(s *mailtest.Server, _ *SMTP) { s.Reply("MAIL", 452, 1) }, "sender rgate@example.com: 452", false, nil},
		{"a wrong sender", func(s *mailtest.Server, _ *SMTP) { s.Reply("MAIL", 553, 1) }, "sender rgate@example.com: 553", true, nil},
		{"a wrong recipient", func(s *mailtest.Server, _ *SMTP) { s.Refuse("ops@example.com") }, "recipient ops@example.com: 550", true, nil},
		{"one of two wrong", func(s *mailtest.Server, o *SMTP) {
			s.Refuse("gone@example.com")
			o.To = []string{"gone@example.com", "ops@example.com"}
		}, "recipient gone@example.com: 550", true, []string{"ops@example.com"}},
		{"one of two later", func(s *mailtest.Server, o *SMTP) {
			s.Reply("RCPT", 450, 1)
			o.To = []string{"later@example.com", "ops@example.com"}
		}, "recipient later@example.com: 450", false, []string{"ops@example.com"}},
		{"a wrong password", func(_ *mailtest.Server, o *SMTP) { o.Password = "wrong" }, "authentication as rgate: 535", true, nil},
		{"authentication for later", func(s *mailtest.Server, _ *SMTP) { s.Reply("AUTH", 454, 1) }, "authentication as rgate: 454", false, nil},
		{"an untrusted certificate", func(_ *mailtest.Server, o *SMTP) { o.CAFile = "" }, "STARTTLS: tls: failed to verify certificate", false, nil},
		{"a server that is down", func(s *mailtest.Server, _ *SMTP) { s.Stop() }, "connecting to", false, nil},
	} {
		server := mailtest.Start(t)
		options := mailOptions(server)
		c.prepare(server, options)
		n := sampleAlert()
		delivered, err := mailerFor(t, options).send(t.Context(), n.ID, n.At, n.mail(""), nil)
		if err == nil || !strings.Contains(err.Error(), c.want) || isPermanent(err) != c.permanent || !slices.Equal(delivered, c.delivered) {
			t.Errorf("%s: got %v, %v (permanent: %v), want %q", c.what, delivered, err, isPermanent(err), c.want)
		}
		if err != nil && strings.Contains(err.Error(), mailtest.Password) {
			t.Errorf("%s: the error has the password: %v", c.what, err)
		}
	}
}

// Recipients that received a message do not receive it again.
func TestMailGoesToTheOtherRecipients(t *testing.T) {
	server := mailtest.Start(t)
	options := mailOptions(server)
	options.To = []string{"a@example.com", "b@example.com"}
	m := mailerFor(t, options)
	n := sampleAlert()
	if _, err := m.send(t.Context(), n.ID, n.At, n.mail(""), []string{"a@example.com"}); err != nil {
		t.Fatal(err)
	}
	if got := server.Messages()[0].To; !slices.Equal(got, []string{"b@example.com"}) {
		t.Errorf("got %v", got)
	}
	if delivered, err := m.send(t.Context(), n.ID, n.At, n.mail(""), []string{"a@example.com", "b@example.com"}); err != nil || len(delivered) > 0 || len(server.Messages()) != 1 {
		t.Errorf("to no recipient: got %v, %v, and %d messages", delivered, err, len(server.Messages()))
	}
}

// The password is never sent in plain text.
func TestMailWithoutSTARTTLS(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	received := make(chan string, 1)
	go func() {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		_, _ = io.WriteString(conn, "220 mail.example.com\r\n250-mail.example.com\r\n250 AUTH PLAIN\r\n")
		all, _ := io.ReadAll(conn) // until the client disconnects
		received <- string(all)
	}()
	options := &SMTP{Address: listener.Addr().String(), Username: "a", Password: "secret", From: "a@example.com", To: []string{"b@example.com"}}
	_, err = mailerFor(t, options).send(t.Context(), "id", time.Now(), mailText{}, nil)
	if err == nil || !isPermanent(err) || !strings.Contains(err.Error(), "STARTTLS: not supported by the server") {
		t.Errorf("got %v", err)
	}
	if text := <-received; strings.Contains(text, "AUTH") {
		t.Errorf("the client said %q", text)
	}
}

// A delivery to an unresponsive server ends after the timeout.
func TestMailEndsInTime(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	m := mailerFor(t, &SMTP{Address: listener.Addr().String(), From: "a@example.com", To: []string{"b@example.com"}})
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := m.send(ctx, "id", time.Now(), mailText{}, nil); err == nil || isPermanent(err) || !strings.Contains(err.Error(), "greeting") {
		t.Errorf("got %v", err)
	}
}

func TestWebhook(t *testing.T) {
	var status int
	var retry, body string
	var header http.Header
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		read, _ := io.ReadAll(r.Body)
		body, header = string(read), r.Header
		if retry != "" {
			w.Header().Set("Retry-After", retry)
		}
		w.WriteHeader(status)
		_, _ = io.WriteString(w, "text")
	}))
	defer server.Close()
	t.Setenv("RGATE_TEST_TOKEN", "s3cret")
	options := &Webhook{URL: server.URL + "/T000/B000/XXX", Headers: map[string]string{"Authorization": "Bearer {env.RGATE_TEST_TOKEN}"}}
	h, err := options.hook()
	if err != nil {
		t.Fatal(err)
	}
	n := sampleAlert()
	for _, c := range []struct {
		status    int
		retry     string
		wait      time.Duration
		permanent bool
	}{
		{200, "", 0, false}, {204, "", 0, false}, {301, "", 0, true}, {400, "", 0, true}, {404, "", 0, true}, {410, "", 0, true},
		{408, "", 0, false}, {429, "7", 7 * time.Second, false}, {503, "99999", lastRetry, false}, {500, "soon", 0, false},
	} {
		status, retry = c.status, c.retry
		wait, err := h.post(t.Context(), n.ID, n.webhookBody("https://gw.example.com/"))
		if (err == nil) != (c.status < 300) || wait != c.wait || isPermanent(err) != c.permanent {
			t.Errorf("%d: got %v, %v", c.status, wait, err)
		}
		if err != nil && (strings.Contains(err.Error(), "T000") || strings.Contains(err.Error(), "s3cret")) {
			t.Errorf("%d: the error has the secret: %v", c.status, err)
		}
	}
	if header.Get("Authorization") != "Bearer s3cret" || header.Get("Content-Type") != "application/json" || header.Get("Idempotency-Key") != n.ID {
		t.Errorf("got %v", header)
	}
	const want = `{"text":"payment has used 80.0 % of its egress for November 2026. Used: 8.00 GB of 10.0 GB. Forecast: 12.3 GB by the end (123.0 %), used up on 25 November 2026 09:00. https://gw.example.com/",` +
		`"id":"0123456789abcdef","event":"quota_threshold","gateway":"rgate","name":"payment","level":"backend","service":"payment",` +
		`"direction":"egress","threshold":80,"thresholds":[80],"used":8000000000,"allocated":10000000000,"share":80,` +
		`"period":{"name":"November 2026","start":"2026-11-01T00:00:00+01:00","end":"2026-12-01T00:00:00+01:00","timezone":"Europe/Berlin"},` +
		`"forecast":12307692307,"full_at":"2026-11-25T09:00:00+01:00","at_limit":"block","at":"2026-11-20T12:00:00+01:00","link":"https://gw.example.com/"}`
	if body != want {
		t.Errorf("got  %s\nwant %s", body, want)
	}
	server.Close()
	if _, err := h.post(t.Context(), n.ID, nil); err == nil || isPermanent(err) || strings.Contains(err.Error(), "T000") {
		t.Errorf("away: got %v", err)
	}
}
