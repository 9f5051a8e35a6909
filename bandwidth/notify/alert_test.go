package notify

import (
	"os"
	"strings"
	"testing"
)

// The quotas docs page quotes the messages verbatim.
func TestMessagesInTheDocs(t *testing.T) {
	page, err := os.ReadFile("../../docs/operate/quotas.md")
	if err != nil {
		t.Fatal(err)
	}
	n := sampleAlert()
	const link = "https://gw.example.com/dashboard"
	for what, text := range map[string]string{"mail": n.mail(link).plain, "JSON": string(n.webhookBody(link)) + "\n"} {
		if !strings.Contains(string(page), "```text\n"+text+"```\n") {
			t.Errorf("the page lacks the %s as it is:\n%s", what, text)
		}
	}
}

func TestHeadlines(t *testing.T) {
	for _, c := range []struct {
		change func(*Alert)
		want   string
	}{
		{func(n *Alert) {}, "payment has used 80.0 % of its egress for November 2026"},
		{func(n *Alert) { n.Direction = "total" }, "payment has used 80.0 % of its bandwidth for November 2026"},
		{func(n *Alert) { n.Consumer = "alice" }, "alice at payment has used 80.0 % of its egress for November 2026"},
		{func(n *Alert) { n.Used, n.Share = 10_500_000_000, 105 }, "payment has used up its egress for November 2026: 105.0 %"},
		// Shares are rounded down.
		{func(n *Alert) { n.Used = 9_999_999_999; n.Share = 99.99999999 }, "payment has used 99.9 % of its egress for November 2026"},
	} {
		n := sampleAlert()
		c.change(&n)
		if got := n.headline(); got != c.want {
			t.Errorf("got %q, want %q", got, c.want)
		}
	}
}

func TestOutlook(t *testing.T) {
	n := sampleAlert()
	n.AtEnd, n.FullAt = nil, nil
	if got := n.outlook(); got != "not yet: the period has just begun" {
		t.Errorf("got %q", got)
	}
}
