package bandwidth

import (
	"bytes"
	"encoding/json"
	"fmt"
	"html/template"
	"strings"
	"time"
	"unicode"

	"github.com/rgate/rgate/bandwidth/store"
)

// alert says that a quota has reached a threshold. It is kept as JSON until it has
// been delivered, and most of it is what a webhook is sent.
type alert struct {
	ID    string `json:"id"` // the same at every attempt to deliver it
	Event string `json:"event"`

	Gateway  string `json:"gateway"`
	Name     string `json:"name"` // of the quota
	Level    string `json:"level"`
	Service  string `json:"service,omitempty"`
	Route    string `json:"route,omitempty"`
	Group    string `json:"group,omitempty"`
	Consumer string `json:"consumer,omitempty"`

	Direction string     `json:"direction"` // `ingress`, `egress`, `total`
	Threshold int        `json:"threshold"` // the highest that has been reached, in percent
	Crossed   []int      `json:"thresholds"`
	Used      int64      `json:"used"`
	Allocated int64      `json:"allocated"`
	Share     float64    `json:"share"` // in percent
	Period    periodSpan `json:"period"`
	forecast
	AtLimit string    `json:"at_limit"`
	At      time.Time `json:"at"` // when that was found out
}

// periodSpan is the period of a quota.
type periodSpan struct {
	Name     string    `json:"name"`
	Start    time.Time `json:"start"`
	End      time.Time `json:"end"`
	TimeZone string    `json:"timezone"`
}

const (
	eventThreshold = "quota_threshold"
	eventTest      = "test"
)

// who is what the quota is about, in words.
func (n *alert) who() string {
	if n.Consumer == "" {
		return n.Name
	}
	return printable(n.Consumer) + " at " + n.Name
}

// printable makes one line of a name that may come from anybody's token.
func printable(name string) string {
	return strings.Map(func(c rune) rune {
		if unicode.IsControl(c) {
			return '?'
		}
		return c
	}, name)
}

// headline says in one sentence, without its full stop, what has happened.
func (n *alert) headline() string {
	switch {
	case n.Event == eventTest:
		return "This is a test of rgate's messages about quotas"
	case n.Used >= n.Allocated:
		return fmt.Sprintf("%s has used up its %s for %s: %s", n.who(), n.allocation(), n.Period.Name, formatShare(n.Share))
	default:
		return fmt.Sprintf("%s has used %s of its %s for %s", n.who(), formatShare(n.Share), n.allocation(), n.Period.Name)
	}
}

func (n *alert) allocation() string {
	if n.Direction == directionTotal {
		return "bandwidth"
	}
	return n.Direction
}

// fact is a line of the table in a message.
type fact struct{ Label, Value string }

const momentLayout = "2 January 2006 15:04"

// facts are the lines of the table.
func (n *alert) facts() []fact {
	if n.Event == eventTest {
		return []fact{{"Gateway", n.Gateway}, {"Sent", n.At.Format(momentLayout)}}
	}
	exactly := func(bytes int64) string { return fmt.Sprintf("%s (%d bytes)", formatBytes(bytes), bytes) }
	all := make([]string, len(n.Crossed))
	for i, percent := range n.Crossed {
		all[i] = fmt.Sprintf("%d %%", percent)
	}
	meaning := map[string]string{
		string(store.Egress): "egress: what clients received", string(store.Ingress): "ingress: what clients sent",
		directionTotal: "total: what clients sent and received",
	}
	consequence := map[string]string{
		limitNotify: "nothing else happens", limitThrottle: "what flows is slowed down until the period ends", limitBlock: "requests are refused until the period ends",
	}
	facts := []fact{
		{"Used", exactly(n.Used)},
		{"Allocated", exactly(n.Allocated)},
		{"Share", fmt.Sprintf("%s; reached: %s", formatShare(n.Share), strings.Join(all, ", "))},
		{"Direction", meaning[n.Direction]},
		{"Period", fmt.Sprintf("%s: %s to %s (%s)", n.Period.Name, n.Period.Start.Format(momentLayout), n.Period.End.Format(momentLayout), n.Period.TimeZone)},
		{"Forecast", n.outlook()},
		{"At 100 %", consequence[n.AtLimit]},
	}
	for _, place := range []fact{{"Service", n.Service}, {"Route", n.Route}, {"Group", n.Group}, {"Consumer", printable(n.Consumer)}, {"Gateway", n.Gateway}} {
		if place.Value != "" {
			facts = append(facts, place)
		}
	}
	return append(facts, fact{"As of", n.At.Format(momentLayout)})
}

// outlook is the forecast in words.
func (n *alert) outlook() string {
	if n.AtEnd == nil {
		return "it is too early for one"
	}
	text := fmt.Sprintf("%s by the end (%s)", formatBytes(*n.AtEnd), formatShare(shareOf(*n.AtEnd, n.Allocated)))
	if n.FullAt != nil {
		text += ", used up on " + n.FullAt.Format(momentLayout)
	}
	return text
}

// mailText is what a mail says.
type mailText struct{ subject, plain, html string }

// mail writes the notice for people. link leads to more, if it is not empty.
func (n *alert) mail(link string) mailText {
	facts := n.facts()
	var plain strings.Builder
	fmt.Fprintf(&plain, "%s.\n\n", n.headline())
	for _, f := range facts {
		fmt.Fprintf(&plain, "  %-10s %s\n", f.Label, f.Value)
	}
	if link != "" {
		fmt.Fprintf(&plain, "\n%s\n", link)
	}
	fmt.Fprintf(&plain, "\n-- \n%s\n", footer)

	var html bytes.Buffer
	_ = mailTemplate.Execute(&html, struct { // it writes to memory, and its fields are there
		Headline, Link, Footer, Color string
		Bar                           float64
		Facts                         []fact
	}{n.headline(), link, footer, n.color(), min(n.Share, 100), facts})
	return mailText{subject: "[rgate] " + n.headline(), plain: plain.String(), html: html.String()}
}

const footer = "rgate tells each threshold of a quota once in a period."

func (n *alert) color() string {
	switch {
	case n.Event == eventTest:
		return "#2f6f4f"
	case n.Used >= n.Allocated:
		return "#b3261e"
	default:
		return "#b06000"
	}
}

// Mail programs know little of CSS, and of it only what is in each element.
var mailTemplate = template.Must(template.New("mail").Parse(`<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8"><title>{{.Headline}}</title></head>
<body style="margin:0;padding:16px;font:15px/1.5 sans-serif;color:#1b1b1b;background:#ffffff">
<h1 style="margin:0 0 12px;font-size:18px">{{.Headline}}.</h1>
{{- if .Bar}}
<div style="max-width:480px;height:12px;margin:0 0 16px;background:#e4e4e4" role="img" aria-label="{{printf "%.0f" .Bar}} percent">
<div style="width:{{printf "%.1f" .Bar}}%;height:12px;background:{{.Color}}"></div></div>
{{- end}}
<table style="border-collapse:collapse">
{{- range .Facts}}
<tr><th style="padding:2px 16px 2px 0;text-align:left;vertical-align:top;color:#555555;font-weight:normal">{{.Label}}</th><td style="padding:2px 0">{{.Value}}</td></tr>
{{- end}}
</table>
{{- if .Link}}
<p><a href="{{.Link}}" style="color:#0b57d0">{{.Link}}</a></p>
{{- end}}
<p style="margin-top:24px;color:#666666;font-size:13px">{{.Footer}}</p>
</body>
</html>
`))

// webhookBody writes the notice for programs, and in `text` for Slack and others that
// show what is in it.
func (n *alert) webhookBody(link string) []byte {
	text := n.headline() + "."
	if n.Event == eventThreshold {
		text += fmt.Sprintf(" Used: %s of %s. Forecast: %s.", formatBytes(n.Used), formatBytes(n.Allocated), n.outlook())
	}
	if link != "" {
		text += " " + link
	}
	body, _ := json.Marshal(struct { // of nothing that cannot be encoded
		Text string `json:"text"`
		*alert
		Link string `json:"link,omitempty"`
	}{escapeSlack.Replace(text), n, link})
	return body
}

// What begins a link or a mention in Slack's texts.
var escapeSlack = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;")
