package dashboard

import (
	"cmp"
	"time"
)

// quotaStates maps states of a quota to badges.
var quotaStates = map[string]badge{
	"over":      {"bad", "used up"},
	"throttled": {"bad", "used up, slowed down"},
	"blocked":   {"bad", "used up, blocked"},
}

func (s span) quota(q quota) quotaView {
	share := q.share()
	v := quotaView{
		Name: cmp.Or(q.Name, q.Service, q.Route, q.Group, "the gateway"), State: badge{"good", "within"},
		Of:   map[string]string{"egress": "sent", "ingress": "received", "total": "sent and received"}[q.Direction],
		Used: byteCounts.text(float64(q.Used)), Allocated: byteCounts.text(float64(q.Allocated)),
		Share: shares.text(share), Bar: min(share, 1), Outlook: "until " + s.date(q.Period.End),
	}
	if q.Consumer != "" {
		v.Of += " by " + q.Consumer
	}
	for _, t := range q.Thresholds {
		if t.Percent > 0 && t.Percent < 100 {
			v.Marks = append(v.Marks, t.Percent/100)
		}
		if t.CrossedAt != nil {
			v.State = badge{"warn", "above " + shares.text(t.Percent/100)}
		}
		for _, d := range t.Deliveries {
			if d.State == "failed" {
				v.Failures = append(v.Failures, "the "+d.Channel+" about "+shares.text(t.Percent/100)+" could not be delivered: "+d.Error)
			}
		}
	}
	if q.Forecast != nil {
		forecast := ratio(float64(*q.Forecast), float64(q.Allocated))
		v.ForecastBar = min(max(forecast, share), 1)
		v.Outlook = "forecast " + byteCounts.text(float64(*q.Forecast)) + " (" + shares.text(forecast) + ") by " + s.date(q.Period.End)
		if q.FullAt != nil && share < 1 {
			v.Outlook += ", used up on " + s.date(*q.FullAt)
		}
		if forecast >= 1 && v.State.Class == "good" {
			v.State = badge{"warn", "will not last"}
		}
	}
	if state, ok := quotaStates[q.State]; ok {
		v.State = state
	}
	if does := map[string]string{"block": "blocks", "throttle": "slows down"}[q.AtLimit]; does != "" && share < 1 {
		v.Outlook += "; then it " + does
	}
	v.Alt = v.Used + " of " + v.Allocated + " used, " + v.Share + "; " + v.Outlook
	return v
}

func (s span) date(t time.Time) string { return t.In(s.in).Format("2 Jan 15:04") }
