package dashboard

import (
	"math"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

func demoSpan() span { return spanOf(timeRanges[1], time.Minute, demoNow, time.UTC) }

func seriesOf(s span, name string, value func(i int) float64) series {
	row := s.nulls()
	for i := range row {
		row[i] = value(i)
	}
	return series{name: name, class: "c1", values: row, value: "all"}
}

// All labels of an axis have the same unit, and the highest value is at most the last
// label.
func TestAxes(t *testing.T) {
	for _, tc := range []struct {
		q               quantity
		lowest, highest float64
		want            string
	}{
		{rates, 0, 0, "0 0.25/s 0.5/s 0.75/s 1/s"},
		{rates, 3, 7, "0 2/s 4/s 6/s 8/s"},
		{rates, 1, 143, "0 50/s 100/s 150/s"},
		{byteRates, 0, 8.4e6, "0 2.5 MB/s 5 MB/s 7.5 MB/s 10 MB/s"},
		{byteRates, 0, 999_900, "0 0.25 MB/s 0.5 MB/s 0.75 MB/s 1 MB/s"},
		{shares, 0, 0, "0 0.25 % 0.5 % 0.75 % 1 %"},
		{shares, 0, 1, "0 25 % 50 % 75 % 100 %"},
		{shares, 0, 0.93, "0 25 % 50 % 75 % 100 %"},
		{durations, 0.017, 2.1, "10 ms 100 ms 1 s 10 s"},
		{durations, 0.010, 0.0100001, "10 ms 100 ms"},
		{durations, 0, 1800, "0.01 ms 10 ms 10 s 10000 s"},
	} {
		var p picture
		var at axis
		if tc.q == durations {
			at = p.decades(tc.lowest, tc.highest)
		} else {
			at = p.linear(tc.q, tc.highest)
		}
		var labels []string
		for i, tick := range p.Ticks {
			labels = append(labels, strings.ReplaceAll(tick.Text, "\u00a0", " "))
			if want := 1 - float64(i)/float64(len(p.Ticks)-1); math.Abs(tick.At-want) > 1e-9 {
				t.Errorf("%v: the line of %s is at %g", tc, tick.Text, tick.At)
			}
		}
		if got := strings.Join(labels, " "); got != tc.want {
			t.Errorf("%v to %v of kind %d: got %q, want %q", tc.lowest, tc.highest, tc.q, got, tc.want)
		}
		for _, v := range []float64{tc.lowest, (tc.lowest + tc.highest) / 2, tc.highest} {
			if y := at(v); y < 0 || y > 1+1e-9 || math.IsNaN(y) {
				t.Errorf("%v: %g is at %g", tc, v, y)
			}
		}
	}
}

// Windows without data are gaps. A single window between two gaps is drawn.
func TestNullsLeaveGaps(t *testing.T) {
	s := demoSpan()
	one := seriesOf(s, "a", func(i int) float64 {
		if i == 10 || i == 12 || i > 50 {
			return null
		}
		return float64(i)
	})
	p := draw("x", "X", s, rates, []series{one}, false)
	if p.Empty || len(p.Shapes) != 3 {
		t.Fatalf("the picture has %d shapes", len(p.Shapes))
	}
	area, line, dot := p.Shapes[0].Path, p.Shapes[1].Path, p.Shapes[2].Path
	if n := strings.Count(line, "M"); n != 2 {
		t.Errorf("the line has %d parts: %s", n, line)
	}
	if n := strings.Count(line, "L"); n != 9+37 {
		t.Errorf("the line has %d pieces", n)
	}
	if n := strings.Count(area, "Z"); n != 2 {
		t.Errorf("the area has %d parts", n)
	}
	if !regexp.MustCompile(`^M\d+ \d+h0$`).MatchString(dot) {
		t.Errorf("the single window is %q", dot)
	}
	if len(p.Columns) != 49 || len(p.Rows) != s.n || p.Rows[s.n-1-10].Cells[0] != "–" {
		t.Errorf("there are %d columns, %d rows, and %v", len(p.Columns), len(p.Rows), p.Rows[s.n-1-10])
	}
	empty := draw("x", "X", s, rates, []series{{values: s.nulls()}}, false)
	if !empty.Empty || len(empty.Shapes) != 0 {
		t.Error("a picture of nothing has something in it")
	}
}

// Each bar starts at the end of the bar below, and the total height represents the sum.
func TestBarsAreStacked(t *testing.T) {
	s := demoSpan()
	a, b := seriesOf(s, "a", func(int) float64 { return 300 }), seriesOf(s, "b", func(i int) float64 { return float64(i%2) * 700 })
	p := draw("x", "X", s, byteRates, []series{a, b}, true)
	if top := p.Ticks[len(p.Ticks)-1].Text; top != "1\u00a0KB/s" {
		t.Errorf("the highest label is %s", top)
	}
	bar := regexp.MustCompile(`^M(\d+) (\d+)V(\d+)H(\d+)V(\d+)Z`)
	first, second := bar.FindStringSubmatch(p.Shapes[0].Path), bar.FindStringSubmatch(p.Shapes[1].Path)
	if first == nil || first[2] != "1000" || first[3] != "700" {
		t.Errorf("the first bar is %v", first)
	}
	if second == nil || second[2] != "700" || second[3] != "0" {
		t.Errorf("the second bar is %v", second)
	}
	if n := strings.Count(p.Shapes[1].Path, "Z"); n != s.n/2 {
		t.Errorf("the second series has %d bars", n)
	}
	if cells := p.Rows[1].Cells; strings.Join(cells, "|") != "300\u00a0B/s|700\u00a0B/s|1\u00a0KB/s" {
		t.Errorf("the table has %q", cells)
	}
	for _, c := range p.Columns {
		if c.Width < 1 || c.X < 0 || c.X+c.Width > side {
			t.Errorf("a column is at %d, %d wide", c.X, c.Width)
		}
	}
}

// For any values, the paths are inside the drawing area.
func FuzzPictures(f *testing.F) {
	f.Add(1.0, 2.0, 3.0, uint8(0))
	f.Add(0.0, 1e-300, 1e300, uint8(3))
	f.Add(math.NaN(), 5.5, 0.001, uint8(1))
	number := regexp.MustCompile(`-?\d+`)
	f.Fuzz(func(t *testing.T, a, b, c float64, kind uint8) {
		values := []float64{a, b, c}
		for i, v := range values {
			if v < 0 || math.IsInf(v, 0) || v > 1e30 {
				values[i] = null
			}
		}
		q := []quantity{rates, byteRates, shares, durations}[kind%4]
		if q == shares {
			for i, v := range values {
				if v > 1 {
					values[i] = 1
				}
			}
		}
		s := demoSpan()
		p := draw("x", "X", s, q, []series{seriesOf(s, "a", func(i int) float64 { return values[i%3] })}, q == byteRates)
		if len(p.Ticks) > 12 {
			t.Errorf("%v: %d lines across", values, len(p.Ticks))
		}
		for _, shape := range p.Shapes {
			for _, text := range number.FindAllString(shape.Path, -1) {
				if n, err := strconv.Atoi(text); err != nil || n < -1 || n > side+1 {
					t.Fatalf("%v of kind %d: the path has %s: %s", values, q, text, shape.Path)
				}
			}
		}
	})
}
