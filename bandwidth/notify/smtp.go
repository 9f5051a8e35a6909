package notify

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	netmail "net/mail"
	"net/textproto"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/wneessen/go-mail"
	"github.com/wneessen/go-mail/smtp"
)

// mailer delivers mail to one SMTP server. It is immutable.
type mailer struct {
	address, host      string
	tls                string // `starttls`, `implicit`, `none`
	roots              *x509.CertPool
	username, password string
	from               *netmail.Address
	to                 []*netmail.Address
	timeout            time.Duration

	report func(step, detail string) // called after each successful step; may be nil
}

// stepError is the error of a delivery step.
type stepError struct {
	step      string
	err       error
	permanent bool // whether retries are useless
}

func (e *stepError) Error() string { return e.step + ": " + e.err.Error() }

func (e *stepError) Unwrap() error { return e.err }

// isPermanent reports whether retrying is useless. Network errors are not permanent.
func isPermanent(err error) bool {
	var failed *stepError
	return errors.As(err, &failed) && failed.permanent
}

// failedAt returns the error of a step. It is permanent if err is an SMTP reply of 500 or
// above.
func failedAt(step string, err error) *stepError {
	var reply *textproto.Error
	return &stepError{step, err, errors.As(err, &reply) && reply.Code >= 500}
}

// send delivers a message to the recipients except those in have. It returns the
// recipients that the server accepted. The error describes the rejected recipients or the
// failed step.
func (m *mailer) send(ctx context.Context, id string, at time.Time, text mailText, have []string) (delivered []string, err error) {
	raw, err := m.compose(id, at, text)
	if err != nil {
		return nil, &stepError{"composing", err, true}
	}
	ctx, cancel := context.WithTimeout(ctx, m.timeout)
	defer cancel()
	client, err := m.dial(ctx)
	if err != nil {
		return nil, err
	}
	defer client.Close()
	// The connection's deadline is ctx's deadline. If ctx is canceled earlier, end the
	// connection.
	stop := context.AfterFunc(ctx, func() { _ = client.UpdateDeadline(-time.Second) })
	defer stop()
	if err := m.open(client); err != nil {
		return nil, err
	}

	if err := client.Mail(angle(m.from.Address)); err != nil {
		return nil, failedAt("sender "+m.from.Address, err)
	}
	m.reportStep("sender", m.from.Address)
	accepted, err := m.recipients(client, have)
	if len(accepted) == 0 {
		return nil, err
	}
	reply, failed := transmit(client, raw)
	if failed != nil {
		return nil, failedAt("message", failed)
	}
	m.reportStep("message", reply)
	_ = client.Quit() // ignore the error: the server has accepted the message
	return accepted, err
}

func (m *mailer) reportStep(step, detail string) {
	if m.report != nil {
		m.report(step, detail)
	}
}

// dial connects to the server, with implicit TLS if configured.
func (m *mailer) dial(ctx context.Context) (*smtp.Client, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", m.address)
	if err != nil {
		return nil, failedAt("connecting to "+m.address, err)
	}
	if deadline, ok := ctx.Deadline(); ok {
		_ = conn.SetDeadline(deadline) // cannot fail on a new connection
	}
	m.reportStep("connection", fmt.Sprintf("%s (%s)", m.address, conn.RemoteAddr()))
	if m.tls == tlsImplicit {
		encrypted := tls.Client(conn, m.tlsConfig())
		if err := encrypted.HandshakeContext(ctx); err != nil {
			_ = conn.Close()
			return nil, failedAt("TLS", err)
		}
		m.reportStep("TLS", describeTLS(encrypted.ConnectionState()))
		conn = encrypted
	}
	client, err := smtp.NewClient(conn, m.host)
	if err != nil {
		_ = conn.Close()
		return nil, failedAt("greeting", err)
	}
	return client, nil
}

func (m *mailer) tlsConfig() *tls.Config {
	return &tls.Config{ServerName: m.host, RootCAs: m.roots, MinVersion: tls.VersionTLS12}
}

func describeTLS(state tls.ConnectionState) string {
	text := tls.VersionName(state.Version)
	if len(state.PeerCertificates) > 0 {
		text += ", certificate valid until " + state.PeerCertificates[0].NotAfter.Format("2006-01-02")
	}
	return text
}

// open sends EHLO, starts TLS and authenticates.
func (m *mailer) open(client *smtp.Client) error {
	client.SkipSMTPUTF8(true) // addresses are ASCII; the rest is encoded
	if err := client.Hello(helloName()); err != nil {
		return failedAt("greeting", err)
	}
	m.reportStep("greeting", client.HelloResponse())
	if m.tls == tlsStart {
		if ok, _ := client.Extension("STARTTLS"); !ok {
			return &stepError{"STARTTLS", errors.New("not supported by the server: use tls: implicit, or tls: none in a trusted network"), true}
		}
		if err := client.StartTLS(m.tlsConfig()); err != nil {
			return failedAt("STARTTLS", err)
		}
		if state, ok := client.TLSConnectionState(); ok {
			m.reportStep("STARTTLS", describeTLS(state))
		}
	}
	if m.username == "" {
		return nil
	}
	_, offered := client.Extension("AUTH")
	mechanism, auth := m.auth(strings.Fields(offered))
	if auth == nil {
		return &stepError{"authentication", fmt.Errorf("no supported mechanism among %q: remove username if the server needs no authentication", offered), true}
	}
	if err := client.Auth(auth); err != nil {
		return failedAt("authentication as "+m.username, err)
	}
	m.reportStep("authentication", fmt.Sprintf("as %s by %s", m.username, mechanism))
	return nil
}

// auth returns the preferred supported mechanism that the server offers, or nil.
func (m *mailer) auth(offered []string) (string, smtp.Auth) {
	for _, known := range []struct {
		name string
		auth smtp.Auth
	}{
		{"SCRAM-SHA-256", smtp.ScramSHA256Auth(m.username, m.password)},
		{"SCRAM-SHA-1", smtp.ScramSHA1Auth(m.username, m.password)},
		{"PLAIN", smtp.PlainAuth("", m.username, m.password, m.host, false)},
		{"LOGIN", smtp.LoginAuth(m.username, m.password, m.host, false)},
		{"CRAM-MD5", smtp.CRAMMD5Auth(m.username, m.password)},
	} {
		if slices.Contains(offered, known.name) {
			return known.name, known.auth
		}
	}
	return "", nil
}

// recipients sends RCPT for the recipients except those in have, and returns the accepted
// ones. The error describes the rejected ones. It is permanent if each rejection is
// permanent.
func (m *mailer) recipients(client *smtp.Client, have []string) (accepted []string, err error) {
	var all []error
	permanent := true
	for _, to := range m.to {
		if slices.Contains(have, to.Address) {
			continue
		}
		if err := client.Rcpt(angle(to.Address)); err != nil {
			failed := failedAt("recipient "+to.Address, err)
			permanent = permanent && failed.permanent
			all = append(all, failed)
			continue
		}
		accepted = append(accepted, to.Address)
		m.reportStep("recipient", to.Address)
	}
	if len(all) > 0 {
		err = &stepError{"rejected", errors.Join(all...), permanent}
	}
	return accepted, err
}

// transmit sends the message and returns the server's reply.
func transmit(client *smtp.Client, raw []byte) (reply string, err error) {
	w, err := client.Data()
	if err != nil {
		return "", err
	}
	if _, err := w.Write(raw); err != nil {
		return "", err
	}
	if err := w.Close(); err != nil {
		return "", err
	}
	return w.(*smtp.DataCloser).ServerResponse(), nil
}

// compose returns the message in the format of RFC 5322.
func (m *mailer) compose(id string, at time.Time, text mailText) ([]byte, error) {
	msg := mail.NewMsg(mail.WithNoDefaultUserAgent())
	msg.FromMailAddress(m.from)
	msg.ToMailAddress(m.to...)
	msg.Subject(text.subject)
	msg.SetDateWithValue(at)
	msg.SetMessageIDWithValue(messageID(id, m.from.Address))
	msg.SetGenHeader("Auto-Submitted", "auto-generated") // prevents automatic replies (RFC 3834)
	msg.SetBodyString(mail.TypeTextPlain, text.plain)
	msg.AddAlternativeString(mail.TypeTextHTML, text.html)
	var raw bytes.Buffer
	_, err := msg.WriteTo(&raw)
	return raw.Bytes(), err
}

// messageID returns the Message-ID. It is the same in each attempt, so that mail clients
// can detect duplicates.
func messageID(id, from string) string {
	return "rgate." + id + from[strings.LastIndexByte(from, '@'):]
}

func angle(address string) string { return "<" + address + ">" }

var hostName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9.-]*$`)

// helloName returns the client's name for EHLO.
func helloName() string {
	if name, err := os.Hostname(); err == nil && hostName.MatchString(name) {
		return name
	}
	return "localhost"
}
