package bandwidth

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/textproto"
	"os"
	"slices"
	"time"

	"github.com/caddyserver/caddy/v2"
)

// SendTest sends a test message in each of the ways that a configuration, in JSON, has
// for those about quotas. It writes each step that has succeeded. The error is about
// the first way that failed, and ends in what to look at.
func SendTest(ctx context.Context, config []byte, out io.Writer) error {
	var tree any
	if err := json.Unmarshal(config, &tree); err != nil {
		return fmt.Errorf("reading the configuration: %w", err)
	}
	var all []*Notify
	if err := findNotify(tree, &all); err != nil {
		return err
	}
	if len(all) == 0 {
		return errors.New("the configuration has no notify: add one that says who gets mail")
	}
	var failed error
	for _, p := range all {
		if err := p.sendTest(ctx, out); failed == nil {
			failed = err
		}
	}
	return failed
}

// findNotify finds the handlers that say who hears of quotas.
func findNotify(tree any, all *[]*Notify) error {
	switch tree := tree.(type) {
	case []any:
		for _, inner := range tree {
			if err := findNotify(inner, all); err != nil {
				return err
			}
		}
	case map[string]any:
		if tree["handler"] == "rgate_notify" {
			delete(tree, "handler")
			p := new(Notify)
			raw, err := json.Marshal(tree)
			if err == nil {
				err = caddy.StrictUnmarshalJSON(raw, p)
			}
			if err != nil {
				return fmt.Errorf("reading notify: %w", err)
			}
			if !p.Off() {
				*all = append(*all, p)
			}
			return nil
		}
		for _, key := range slices.Sorted(maps.Keys(tree)) {
			if err := findNotify(tree[key], all); err != nil {
				return err
			}
		}
	}
	return nil
}

func (p *Notify) sendTest(ctx context.Context, out io.Writer) error {
	if err := p.Check(); err != nil {
		return err
	}
	ways, err := p.channels()
	if err != nil {
		return err
	}
	host, _ := os.Hostname() // only to be shown
	test := alert{ID: rand.Text(), Event: eventTest, Gateway: host, At: time.Now()}
	step := func(name, detail string) { fmt.Fprintf(out, "  %-15s %s\n", name, detail) }
	var failed error
	for _, name := range ways.names() {
		fmt.Fprintln(out, ways.describe(name))
		if name == channelMail {
			ways.mail.report = step
			_, err = ways.mail.send(ctx, test.ID, test.At, test.mail(p.Link), nil)
		} else {
			if _, err = ways.hook.post(ctx, test.ID, test.webhookBody(p.Link)); err == nil {
				step("request", "accepted")
			}
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

// remedy says what to look at when a message could not be delivered.
func remedy(err error) string {
	var unknown x509.UnknownAuthorityError
	var wrongName x509.HostnameError
	var network *net.OpError
	var reply *textproto.Error
	switch {
	case errors.As(err, &unknown):
		return ": nobody whom this machine trusts has signed the certificate: set ca_file"
	case errors.As(err, &wrongName):
		return ": use a name in address that the certificate is for"
	case errors.As(err, &reply) && (reply.Code == 535 || reply.Code == 534):
		return ": check username and password"
	case errors.As(err, &reply) && reply.Code == 530:
		return ": the server wants a username and a password, or another kind of tls"
	case errors.As(err, &reply) && reply.Code/100 == 4:
		return ": the server asks to be tried again later, which the gateway does by itself"
	case errors.As(err, &network) && network.Op == "dial":
		return ": check address, and that a firewall lets the gateway through to it"
	}
	return ""
}
