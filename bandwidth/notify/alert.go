package notify

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

// Alert is the message that a quota has reached a threshold. The outbox stores it as
// JSON. Webhooks receive the same JSON with the field `text`, and `link` if set.
type Alert struct {
	ID    string `json:"id"` // the same in every delivery attempt
	Event string `json:"event"`

	Gateway  string `json:"gateway"`
	Name     string `json:"name"` // name of the quota
	Level    string `json:"level"`
	Service  string `json:"service,omitempty"`
	Route    string `json:"route,omitempty"`
	Group    string `json:"group,omitempty"`
	Consumer string `json:"consumer,omitempty"`

	Direction string  `json:"direction"`  // `ingress`, `egress`, `total`
	Threshold int     `json:"threshold"`  // highest reached threshold in percent
	Crossed   []int   `json:"thresholds"` // all reached thresholds in ascending order
	Used      int64   `json:"used"`       // bytes
	Allocated int64   `json:"allocated"`  // bytes
	Share     float64 `json:"share"`      // in percent
	Period    Period  `json:"period"`
	Forecast
	AtLimit string    `json:"at_limit"` // `notify`, `throttle`, `block`
	At      time.Time `json:"at"`       // time of the evaluation
}

// Forecast is the expected usage of a period.
type Forecast struct {
	AtEnd  *int64     `json:"forecast"`          // expected bytes at the end of the period; nil if it is too early for a forecast
	FullAt *time.Time `json:"full_at,omitempty"` // expected time when the allocation is used up; nil if it already is, or not in this period
}

// Period is a period of a quota.
type Period struct {
	Name     string    `json:"name"`
	Start    time.Time `json:"start"`
	End      time.Time `json:"end"`
	TimeZone string    `json:"timezone"`
}

// The kinds of alerts.
const (
	EventThreshold = "quota_threshold"
	eventTest      = "test"
)

// subject returns the name of the quota, with its consumer if it has one.
func (a *Alert) subject() string {
	if a.Consumer == "" {
		return a.Name
	}
	return printable(a.Consumer) + " at " + a.Name
}

// printable replaces control characters. Consumer names may come from tokens.
func printable(name string) string {
	return strings.Map(func(c rune) rune {
		if unicode.IsControl(c) {
			return '?'
		}
		return c
	}, name)
}

// headline returns one sentence without its full stop.
func (a *Alert) headline() string {
	switch {
	case a.Event == eventTest:
		return "This is a test of rgate's messages about quotas"
	case a.Used >= a.Allocated:
		return fmt.Sprintf("%s has used up its %s for %s: %s", a.subject(), a.allocation(), a.Period.Name, formatShare(a.Share))
	default:
		return fmt.Sprintf("%s has used %s of its %s for %s", a.subject(), formatShare(a.Share), a.allocation(), a.Period.Name)
	}
}

func (a *Alert) allocation() string {
	if a.Direction == "total" {
		return "bandwidth"
	}
	return a.Direction
}

// fact is a table row in a message.
type fact struct{ Label, Value string }

const momentLayout = "2 January 2006 15:04"

// facts returns the table rows.
func (a *Alert) facts() []fact {
	if a.Event == eventTest {
		return []fact{{"Gateway", a.Gateway}, {"Sent", a.At.Format(momentLayout)}}
	}
	exactly := func(bytes int64) string { return fmt.Sprintf("%s (%d bytes)", formatBytes(bytes), bytes) }
	all := make([]string, len(a.Crossed))
	for i, percent := range a.Crossed {
		all[i] = fmt.Sprintf("%d %%", percent)
	}
	meaning := map[string]string{
		string(store.Egress): "egress: what clients received", string(store.Ingress): "ingress: what clients sent",
		"total": "total: what clients sent and received",
	}
	consequence := map[string]string{
		"notify": "nothing else happens", "throttle": "bodies are slowed down until the period ends", "block": "requests are refused until the period ends",
	}
	facts := []fact{
		{"Used", exactly(a.Used)},
		{"Allocated", exactly(a.Allocated)},
		{"Share", fmt.Sprintf("%s; reached: %s", formatShare(a.Share), strings.Join(all, ", "))},
		{"Direction", meaning[a.Direction]},
		{"Period", fmt.Sprintf("%s: %s to %s (%s)", a.Period.Name, a.Period.Start.Format(momentLayout), a.Period.End.Format(momentLayout), a.Period.TimeZone)},
		{"Forecast", a.outlook()},
		{"At 100 %", consequence[a.AtLimit]},
	}
	for _, scope := range []fact{{"Service", a.Service}, {"Route", a.Route}, {"Group", a.Group}, {"Consumer", printable(a.Consumer)}, {"Gateway", a.Gateway}} {
		if scope.Value != "" {
			facts = append(facts, scope)
		}
	}
	return append(facts, fact{"As of", a.At.Format(momentLayout)})
}

// outlook returns the forecast as text.
func (a *Alert) outlook() string {
	if a.AtEnd == nil {
		return "not yet: the period has just begun"
	}
	text := fmt.Sprintf("%s by the end (%s)", formatBytes(*a.AtEnd), formatShare(float64(*a.AtEnd)/float64(a.Allocated)*100))
	if a.FullAt != nil {
		text += ", used up on " + a.FullAt.Format(momentLayout)
	}
	return text
}

// mailText is the content of a mail.
type mailText struct{ subject, plain, html string }

// mail formats the alert as a mail. The mail ends with link, unless link is empty.
func (a *Alert) mail(link string) mailText {
	facts := a.facts()
	var plain strings.Builder
	fmt.Fprintf(&plain, "%s.\n\n", a.headline())
	for _, f := range facts {
		fmt.Fprintf(&plain, "  %-10s %s\n", f.Label, f.Value)
	}
	if link != "" {
		fmt.Fprintf(&plain, "\n%s\n", link)
	}
	fmt.Fprintf(&plain, "\n-- \n%s\n", footer)

	var html bytes.Buffer
	_ = mailTemplate.Execute(&html, struct { // cannot fail: html is in memory
		Headline, Link, Footer, Color string
		Bar                           float64
		Facts                         []fact
	}{a.headline(), link, footer, a.color(), min(a.Share, 100), facts})
	return mailText{subject: "[rgate] " + a.headline(), plain: plain.String(), html: html.String()}
}

const footer = "rgate reports each threshold of a quota once per period."

func (a *Alert) color() string {
	switch {
	case a.Event == eventTest:
		return "#2f6f4f"
	case a.Used >= a.Allocated:
		return "#b3261e"
	default:
		return "#b06000"
	}
}

// Mail clients support little CSS, and only inline.
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

// webhookBody returns the alert as JSON. Slack and compatible services display the field
// `text`.
func (a *Alert) webhookBody(link string) []byte {
	text := a.headline() + "."
	if a.Event == EventThreshold {
		text += fmt.Sprintf(" Used: %s of %s. Forecast: %s.", formatBytes(a.Used), formatBytes(a.Allocated), a.outlook())
	}
	if link != "" {
		text += " " + link
	}
	body, _ := json.Marshal(struct { // cannot fail with these types
		Text string `json:"text"`
		*Alert
		Link string `json:"link,omitempty"`
	}{escapeSlack.Replace(text), a, link})
	return body
}

// escapeSlack escapes the control characters of Slack's markup.
var escapeSlack = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;")
