package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/caddyserver/caddy/v2"
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"
)

// usageAsk is what `rgate usage` was asked for.
type usageAsk struct {
	services, routes []string
	since, step      string
	direction, by    string
	asJSON           bool
	fold             bool // days, into as few columns as there may be
	address, file    string
}

// mostColumns is how many windows a sparkline has, if nobody says their length.
const mostColumns = 60

// usageCommand makes the command that prints how much bandwidth was used.
func usageCommand() *cobra.Command {
	var ask usageAsk
	cmd := &cobra.Command{
		Use:   "usage [--since <duration>] [--step <duration>] [--service <name>] [--route <name>] [--type ingress|egress] [--by service|route|consumer|gateway] [--json] [--address <admin> | --config <file>]",
		Short: "Prints how many bytes each service took in and gave out",
		Long: `Asks the running gateway, over its admin API, how many bytes each service took in
(ingress) and gave out (egress), and prints a table with a sparkline.

	$ rgate usage --since 24h
	$ rgate usage --service payment --since 7d --step 6h --json`,
		Args: noArgs,
	}
	flags := cmd.Flags()
	flags.StringArrayVar(&ask.services, "service", nil, "Only this service; may be repeated")
	flags.StringArrayVar(&ask.routes, "route", nil, "Only this route; may be repeated")
	flags.StringVar(&ask.since, "since", "24h", "How far to look back, such as 90m, 24h or 7d")
	flags.StringVar(&ask.step, "step", "", "The span of a column of the sparkline, such as 1m, 1h or 1d (default: so that there are at most 60)")
	flags.StringVar(&ask.direction, "type", "", "Only ingress, or only egress")
	flags.StringVar(&ask.by, "by", "service", "What to tell apart: service, route, consumer or gateway")
	flags.BoolVar(&ask.asJSON, "json", false, "Print the points as JSON")
	flags.StringVar(&ask.address, "address", "", "The address of the admin API (default: the configuration's, else "+caddy.DefaultAdminListen+")")
	flags.StringVarP(&ask.file, "config", "c", "", "The configuration that says where the admin API is (default: "+defaultConfig+", if it is there)")
	cmd.RunE = plainly(func() error { return ask.run(os.Stdout, time.Now()) })
	return cmd
}

func (a *usageAsk) run(out io.Writer, now time.Time) error {
	query, err := a.query(now)
	if err != nil {
		return err
	}
	address, err := a.adminAddress()
	if err != nil {
		return err
	}
	body, err := askForUsage(address, query)
	if err != nil {
		return err
	}
	var points []usagePoint
	if err := json.Unmarshal(body, &points); err != nil {
		return noAdmin(address, body)
	}
	if a.asJSON {
		_, err := out.Write(body)
		return err
	}
	return printUsage(out, points, a, query)
}

// query is what to ask the admin API for.
func (a *usageAsk) query(now time.Time) (url.Values, error) {
	since, err := caddy.ParseDuration(a.since)
	if err != nil || since < time.Minute {
		return nil, fmt.Errorf("--since %s is no time to look back: use one such as 90m, 24h or 7d", a.since)
	}
	if a.step == "" {
		a.step, a.fold = stepFor(since), true
	}
	query := url.Values{
		"from": {strconv.FormatInt(now.Add(-since).Unix(), 10)}, "step": {a.step}, "group_by": {a.by},
		"service": a.services, "route": a.routes,
	}
	if a.direction != "" {
		query.Set("type", a.direction)
	}
	return query, nil
}

// stepFor is the span of a column that there are few enough of.
func stepFor(since time.Duration) string {
	for _, step := range []struct {
		length time.Duration
		name   string
	}{
		{time.Minute, "1m"}, {5 * time.Minute, "5m"}, {15 * time.Minute, "15m"}, {30 * time.Minute, "30m"},
		{time.Hour, "1h"}, {4 * time.Hour, "4h"}, {12 * time.Hour, "12h"},
	} {
		if since <= step.length*(mostColumns-1) {
			return step.name
		}
	}
	return "1d"
}

// adminAddress is where the running gateway is asked.
func (a *usageAsk) adminAddress() (string, error) {
	if a.address != "" {
		return strings.TrimSuffix(strings.TrimPrefix(a.address, "http://"), "/"), nil
	}
	file := a.file
	if file == "" {
		if _, err := os.Stat(defaultConfig); errors.Is(err, fs.ErrNotExist) {
			return caddy.DefaultAdminListen, nil
		}
		file = defaultConfig
	}
	cfg, err := load(file)
	if err != nil {
		return "", err
	}
	return caddycmd.DetermineAdminAPIAddress("", cfg, file, "")
}

// askForUsage gets the points as JSON.
func askForUsage(address string, query url.Values) ([]byte, error) {
	response, err := caddycmd.AdminAPIRequest(address, http.MethodGet, "/rgate/bandwidth?"+query.Encode(), nil, nil)
	if err != nil {
		return nil, explainAdmin(address, err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return nil, fmt.Errorf("reading the answer of the admin API at %s: %w", address, err)
	}
	return body, nil
}

// noAdmin is the error of an answer that no gateway gives.
func noAdmin(address string, body []byte) error {
	got := "nothing"
	if text := strings.TrimSpace(string(body)); text != "" {
		got = strconv.Quote(string([]rune(text)[:min(len([]rune(text)), 60)]))
	}
	return fmt.Errorf("what listens at %s is not the admin API of a gateway: it answers %s; say where that is with --address or --config", address, got)
}

// explainAdmin turns an error of the admin API into a message that says what to do.
func explainAdmin(address string, err error) error {
	text := err.Error()
	if errors.Is(err, syscall.ECONNREFUSED) || strings.Contains(text, "connection refused") || strings.Contains(text, "no such file") || strings.Contains(text, "no such host") {
		return fmt.Errorf("no gateway answers at %s: start one, or say where its admin API is with --address or --config", address)
	}
	if at := strings.Index(text, "{"); at >= 0 { // what it answered
		var said struct {
			Error string `json:"error"`
		}
		if json.Unmarshal([]byte(text[at:]), &said) == nil && said.Error != "" {
			return errors.New(said.Error)
		}
	}
	if strings.Contains(text, "HTTP 404") {
		return fmt.Errorf("the program at %s keeps no account of bandwidth: set bandwidth in the gateway's configuration", address)
	}
	return fmt.Errorf("asking the admin API at %s: %w", address, err)
}

// usagePoint is a point of the answer.
type usagePoint struct {
	Time, Type                        string
	Service, Route, Consumer, Gateway *string
	Used                              *int64 `json:"bandwidth_used"`
}

func (p *usagePoint) name(by string) string {
	name := map[string]*string{"service": p.Service, "route": p.Route, "consumer": p.Consumer, "gateway": p.Gateway}[by]
	if name == nil {
		return ""
	}
	return *name
}

// usageLine is one line of the table.
type usageLine struct {
	name            string
	ingress, egress int64
	windows         []*int64 // both together
}

func (l *usageLine) sum() int64 { return l.ingress + l.egress }

// usageLines adds up the points of each name. The largest comes first.
func usageLines(points []usagePoint, by string) (lines []*usageLine, times []string) {
	byName := make(map[string]*usageLine)
	index := make(map[string]int)
	for i := range points {
		if _, ok := index[points[i].Time]; !ok {
			index[points[i].Time] = len(times)
			times = append(times, points[i].Time)
		}
	}
	for i := range points {
		p := &points[i]
		line := byName[p.name(by)]
		if line == nil {
			line = &usageLine{name: p.name(by), windows: make([]*int64, len(times))}
			byName[line.name] = line
			lines = append(lines, line)
		}
		if p.Used == nil {
			continue
		}
		if p.Type == "ingress" {
			line.ingress += *p.Used
		} else {
			line.egress += *p.Used
		}
		if at := &line.windows[index[p.Time]]; *at == nil {
			*at = new(*p.Used)
		} else {
			**at += *p.Used
		}
	}
	slices.SortStableFunc(lines, func(a, b *usageLine) int { return int(min(max(b.sum()-a.sum(), -1), 1)) })
	return lines, times
}
