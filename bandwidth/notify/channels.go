package notify

import (
	"context"
	"time"
)

// The names of the channels.
const (
	channelMail    = "mail"
	channelWebhook = "webhook"
)

// Channels holds the channels of a configuration, with placeholders replaced. It is
// immutable.
type Channels struct {
	mail    *mailer
	webhook *hook
	link    string
}

// Open returns the channels that the options describe; smtp and webhook may be nil.
// Messages end with link, unless it is empty. Open makes no connections.
func Open(smtp *SMTP, webhook *Webhook, link string) (c *Channels, err error) {
	c = &Channels{link: link}
	if smtp != nil {
		if c.mail, err = smtp.mailer(); err != nil {
			return nil, err
		}
	}
	if webhook != nil {
		if c.webhook, err = webhook.hook(); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// Names returns the names of the configured channels.
func (c *Channels) Names() (names []string) {
	if c.mail != nil {
		names = append(names, channelMail)
	}
	if c.webhook != nil {
		names = append(names, channelWebhook)
	}
	return names
}

// describe returns the name and the server of a channel, without secrets.
func (c *Channels) describe(channel string) string {
	if channel == channelMail {
		return "mail " + c.mail.address
	}
	return "webhook " + c.webhook.host()
}

func (c *Channels) timeout(channel string) time.Duration {
	if channel == channelMail {
		return c.mail.timeout
	}
	return c.webhook.timeout
}

// send attempts a delivery. It appends the recipients that the server accepts to
// d.delivered. wait is the minimum delay before a retry, as requested by the server; 0 if
// none.
func (c *Channels) send(ctx context.Context, d *delivery) (wait time.Duration, err error) {
	if d.channel == channelWebhook {
		return c.webhook.post(ctx, d.message, d.alert.webhookBody(c.link))
	}
	delivered, err := c.mail.send(ctx, d.message, d.alert.At, d.alert.mail(c.link), d.delivered)
	d.delivered = append(d.delivered, delivered...)
	return 0, err
}
