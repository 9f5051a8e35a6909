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

// usageAsk holds the flags of `rgate usage`.
type usageAsk struct {
	services, routes []string
	since, step      string
	direction, by    string
	asJSON           bool
	fold             bool // whether to merge days into at most maxColumns columns
	address, file    string
}

// maxColumns is the maximum number of columns of a sparkline, unless --step is set.
const maxColumns = 60

// usageCommand returns the command that prints bandwidth usage.
func usageCommand() *cobra.Command {
	var ask usageAsk
	cmd := &cobra.Command{
		Use:   "usage [--since <duration>] [--step <duration>] [--service <name>] [--route <name>] [--type ingress|egress] [--by service|route|consumer|gateway] [--json] [--address <admin> | --config <file>]",
		Short: "Prints the bandwidth that each service has used",
		Long: `Reads from the running gateway's admin API how many bytes each service received
		(ingress) and sent (egress), and prints a table with a sparkline.

	$ rgate usage --since 24h
	$ rgate usage --service payment --since 7d --step 6h --json`,
		Args: noArgs,
	}
	flags := cmd.Flags()
	flags.StringArrayVar(&ask.services, "service", nil, "Only this service; may be repeated")
	flags.StringArrayVar(&ask.routes, "route", nil, "Only this route; may be repeated")
	flags.StringVar(&ask.since, "since", "24h", "How far to look back, such as 90m, 24h or 7d")
	flags.StringVar(&ask.step, "step", "", "The time range of a column of the sparkline, such as 1m, 1h or 1d (default: chosen for at most 60 columns)")
	flags.StringVar(&ask.direction, "type", "", "Only ingress, or only egress")
	flags.StringVar(&ask.by, "by", "service", "Group by service, route, consumer or gateway")
	flags.BoolVar(&ask.asJSON, "json", false, "Print the points as JSON")
	flags.StringVar(&ask.address, "address", "", "The address of the admin API (default: the address in the configuration, else "+caddy.DefaultAdminListen+")")
	flags.StringVarP(&ask.file, "config", "c", "", "The configuration with the address of the admin API (default: "+defaultConfig+", if it exists)")
	cmd.RunE = withPlainErrors(func() error { return ask.run(os.Stdout, time.Now()) })
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
	body, err := fetchUsage(address, query)
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

// query returns the query parameters for the admin API.
func (a *usageAsk) query(now time.Time) (url.Values, error) {
	since, err := caddy.ParseDuration(a.since)
	if err != nil || since < time.Minute {
		return nil, fmt.Errorf("invalid --since %q: use a duration of at least 1m, such as 90m, 24h or 7d", a.since)
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

// stepFor returns the shortest step that results in at most maxColumns columns, or 1d.
func stepFor(since time.Duration) string {
	for _, step := range []struct {
		length time.Duration
		name   string
	}{
		{time.Minute, "1m"}, {5 * time.Minute, "5m"}, {15 * time.Minute, "15m"}, {30 * time.Minute, "30m"},
		{time.Hour, "1h"}, {4 * time.Hour, "4h"}, {12 * time.Hour, "12h"},
	} {
		if since <= step.length*(maxColumns-1) {
			return step.name
		}
	}
	return "1d"
}

// adminAddress returns the address of the running gateway's admin API.
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

// fetchUsage returns the usage points as JSON from the admin API.
func fetchUsage(address string, query url.Values) ([]byte, error) {
	response, err := caddycmd.AdminAPIRequest(address, http.MethodGet, "/rgate/bandwidth?"+query.Encode(), nil, nil)
	if err != nil {
		return nil, explainAdmin(address, err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return nil, fmt.Errorf("reading the response of the admin API at %s: %w", address, err)
	}
	return body, nil
}

// noAdmin returns the error for a response from a server other than a gateway.
func noAdmin(address string, body []byte) error {
	got := "nothing"
	if text := strings.TrimSpace(string(body)); text != "" {
		got = strconv.Quote(string([]rune(text)[:min(len([]rune(text)), 60)]))
	}
	return fmt.Errorf("%s is not the admin API of a gateway (response: %s): set its address with --address or --config", address, got)
}

// explainAdmin converts an error of the admin API into a message with a remedy.
func explainAdmin(address string, err error) error {
	text := err.Error()
	if errors.Is(err, syscall.ECONNREFUSED) || strings.Contains(text, "connection refused") || strings.Contains(text, "no such file") || strings.Contains(text, "no such host") {
		return fmt.Errorf("no gateway is running at %s: start one, or set the address of its admin API with --address or --config", address)
	}
	if at := strings.Index(text, "{"); at >= 0 { // the response body
		var said struct {
			Error string `json:"error"`
		}
		if json.Unmarshal([]byte(text[at:]), &said) == nil && said.Error != "" {
			return errors.New(said.Error)
		}
	}
	if strings.Contains(text, "HTTP 404") {
		return fmt.Errorf("%s has no bandwidth reports (HTTP 404): set the address of a gateway's admin API with --address or --config", address)
	}
	return fmt.Errorf("requesting the admin API at %s: %w", address, err)
}

// usagePoint is a data point of the response.
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

// usageLine is a row of the table.
type usageLine struct {
	name            string
	ingress, egress int64
	windows         []*int64 // ingress plus egress per column; nil: no data
}

func (l *usageLine) sum() int64 { return l.ingress + l.egress }

// usageLines aggregates the points by name. The lines are sorted by total usage,
// largest first.
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
