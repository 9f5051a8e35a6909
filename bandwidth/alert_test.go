package bandwidth

import (
	"os"
	"strings"
	"testing"
)

// What the page shows is what is sent.
func TestMessagesOnThePage(t *testing.T) {
	page, err := os.ReadFile("../docs/operate/quotas.md")
	if err != nil {
		t.Fatal(err)
	}
	n := sampleNotice()
	const link = "https://gw.example.com/dashboard"
	for what, text := range map[string]string{"mail": n.mail(link).plain, "JSON": string(n.webhookBody(link)) + "\n"} {
		if !strings.Contains(string(page), "```text\n"+text+"```\n") {
			t.Errorf("the page lacks the %s as it is:\n%s", what, text)
		}
	}
}

func TestHeadlines(t *testing.T) {
	for _, c := range []struct {
		change func(*alert)
		want   string
	}{
		{func(n *alert) {}, "payment has used 80.0 % of its egress for November 2026"},
		{func(n *alert) { n.Direction = directionTotal }, "payment has used 80.0 % of its bandwidth for November 2026"},
		{func(n *alert) { n.Consumer = "alice" }, "alice at payment has used 80.0 % of its egress for November 2026"},
		{func(n *alert) { n.Used, n.Share = 10_500_000_000, 105 }, "payment has used up its egress for November 2026: 105.0 %"},
		// What is not reached does not look as if it were.
		{func(n *alert) { n.Used = 9_999_999_999; n.Share = shareOf(n.Used, n.Allocated) }, "payment has used 99.9 % of its egress for November 2026"},
	} {
		n := sampleNotice()
		c.change(&n)
		if got := n.headline(); got != c.want {
			t.Errorf("got %q, want %q", got, c.want)
		}
	}
}

func TestOutlook(t *testing.T) {
	n := sampleNotice()
	n.forecast = forecast{}
	if got := n.outlook(); got != "it is too early for one" {
		t.Errorf("got %q", got)
	}
}
