package notify

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/textproto"
	"os"
	"time"
)

// SendTest sends a test message through each channel, and writes each successful step to
// out. The returned error is the first failure, with a remedy if one is known.
func (c *Channels) SendTest(ctx context.Context, out io.Writer) error {
	host, _ := os.Hostname() // only displayed
	test := Alert{ID: rand.Text(), Event: eventTest, Gateway: host, At: time.Now()}
	step := func(name, detail string) { fmt.Fprintf(out, "  %-15s %s\n", name, detail) }
	var failed error
	for _, name := range c.Names() {
		fmt.Fprintln(out, c.describe(name))
		var err error
		if name == channelMail {
			reporting := *c.mail
			reporting.report = step
			_, err = reporting.send(ctx, test.ID, test.At, test.mail(c.link), nil)
		} else if _, err = c.webhook.post(ctx, test.ID, test.webhookBody(c.link)); err == nil {
			step("request", "accepted")
		}
		if err != nil {
			step("FAILED", err.Error())
			if failed == nil {
				failed = fmt.Errorf("sending a test message: %w%s", err, remedy(err))
			}
		}
	}
	return failed
}

// remedy returns a hint for resolving an error, or an empty string.
func remedy(err error) string {
	var unknown x509.UnknownAuthorityError
	var wrongName x509.HostnameError
	var network *net.OpError
	var reply *textproto.Error
	switch {
	case errors.As(err, &unknown):
		return ": the certificate is not signed by a trusted authority: set ca_file for mail, or trust the authority in the system"
	case errors.As(err, &wrongName):
		return ": set address or url to a name that the certificate is valid for"
	case errors.As(err, &reply) && (reply.Code == 535 || reply.Code == 534):
		return ": check username and password"
	case errors.As(err, &reply) && reply.Code == 530:
		return ": authentication is required: set username and password, or change tls"
	case errors.As(err, &reply) && reply.Code/100 == 4:
		return ": the failure is temporary, and a gateway would retry later"
	case errors.As(err, &network) && network.Op == "dial":
		return ": check address or url, and that no firewall blocks the connection"
	}
	return ""
}
