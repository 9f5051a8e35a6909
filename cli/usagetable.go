package cli

import (
	"fmt"
	"io"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/dustin/go-humanize"
)

// printUsage prints the table of usage.
func printUsage(out io.Writer, points []usagePoint, ask *usageAsk, query url.Values) error {
	lines, times := usageLines(points, ask.by)
	if len(lines) == 0 {
		_, err := fmt.Fprintln(out, "No usage was recorded in this time range. Use `rgate usage --since 30d` to look further back.")
		return err
	}
	total := usageLine{name: "total", windows: make([]*int64, len(times))}
	for _, line := range lines {
		total.ingress += line.ingress
		total.egress += line.egress
		for i, n := range line.windows {
			if n == nil {
				continue
			}
			if total.windows[i] == nil {
				total.windows[i] = new(int64)
			}
			*total.windows[i] += *n
		}
	}
	step := strings.ToUpper(query.Get("step"))
	if days := (len(times) + maxColumns - 1) / maxColumns; days > 1 && ask.fold {
		step = strconv.Itoa(days) + "D"
		for _, line := range append(lines, &total) {
			line.windows = folded(line.windows, days)
		}
	}
	head := []string{strings.ToUpper(ask.by)}
	if ask.direction == "" {
		head = append(head, "INGRESS", "EGRESS")
	} else {
		head = append(head, strings.ToUpper(ask.direction))
	}
	table := [][]string{append(head, "SHARE", "PER "+step)}
	for _, line := range append(lines, &total) {
		cells := []string{line.shownName()}
		if ask.direction != "egress" {
			cells = append(cells, humanBytes(line.ingress))
		}
		if ask.direction != "ingress" {
			cells = append(cells, humanBytes(line.egress))
		}
		table = append(table, append(cells, share(line.sum(), total.sum()), sparkline(line.windows)))
	}
	from, _ := strconv.ParseInt(query.Get("from"), 10, 64) // set by usageAsk.query
	if _, err := fmt.Fprintf(out, "Since %s\n\n", time.Unix(from, 0).Local().Format("2006-01-02 15:04 MST")); err != nil {
		return err
	}
	return printTable(out, table)
}

// folded returns the sums of n windows each. The last sum may cover fewer windows. A
// sum without data is nil.
func folded(windows []*int64, n int) (all []*int64) {
	for some := range slices.Chunk(windows, n) {
		var sum *int64
		for _, one := range some {
			switch {
			case one == nil:
			case sum == nil:
				sum = new(*one)
			default:
				*sum += *one
			}
		}
		all = append(all, sum)
	}
	return all
}

func (l *usageLine) shownName() string {
	if l.name == "" {
		return "(none)"
	}
	return l.name
}

// printTable prints aligned columns: names and sparklines to the left, numbers to the
// right.
func printTable(out io.Writer, table [][]string) error {
	widths := make([]int, len(table[0]))
	for _, cells := range table {
		for i, cell := range cells {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	for _, cells := range table {
		var line strings.Builder
		for i, cell := range cells {
			gap := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell))
			if i == 0 || i == len(cells)-1 {
				line.WriteString(cell + gap)
			} else {
				line.WriteString(gap + cell)
			}
			line.WriteString("  ")
		}
		if _, err := fmt.Fprintln(out, strings.TrimRight(line.String(), " ")); err != nil {
			return err
		}
	}
	return nil
}

func humanBytes(n int64) string { return humanize.Bytes(uint64(max(n, 0))) }

func share(n, whole int64) string {
	if whole == 0 {
		return "–"
	}
	return fmt.Sprintf("%.1f %%", 100*float64(n)/float64(whole))
}

var bars = []rune("▁▂▃▄▅▆▇█")

// sparkline returns a sparkline, scaled to the highest window. A window without data is
// a dot.
func sparkline(windows []*int64) string {
	var highest int64
	for _, n := range windows {
		if n != nil {
			highest = max(highest, *n)
		}
	}
	var line strings.Builder
	for _, n := range windows {
		switch {
		case n == nil:
			line.WriteRune('·')
		case highest == 0:
			line.WriteRune(bars[0])
		default:
			line.WriteRune(bars[int(float64(*n)/float64(highest)*float64(len(bars)-1)+0.5)])
		}
	}
	return line.String()
}
