package dashboard

import (
	"math"
	"strconv"
	"strings"
)

// picture is a chart, rendered as inline SVG. The width of strokes and the size of text
// do not scale with the drawing area. Colors are set by the style sheet, for light and
// dark mode.
type picture struct {
	ID, Title string
	Alt       string // the alternative text
	Total     string // the total over the whole span
	Empty     bool   // whether there is no data

	Ticks   []tick
	Marks   []mark
	Shapes  []shape
	Columns []column
	Legend  []entry

	Head []string
	Rows []row // the data as a table, newest first
}

// tick is a labeled horizontal grid line.
type tick struct {
	At   float64 // the position, from 0 (top) to 1 (bottom)
	Text string
}

// shape is an SVG path in a square with the given side.
type shape struct {
	Class string
	Path  string
}

// column is the area in which hovering shows the values of a window.
type column struct {
	X, Width int
	Text     string
}

// entry is a legend entry.
type entry struct {
	Class, Name, Value string
}

// row is a row of a picture's data table.
type row struct {
	Time  string
	Cells []string
}

// series is a line or a stacked layer of a picture.
type series struct {
	name   string
	class  string // the CSS class of the color
	values []float64
	value  string // the value in the legend
}

// side is the width and height of the drawing area in SVG units.
const side = 1000

// axis maps values to positions from 0 (bottom) to 1 (top).
type axis func(v float64) float64

// draw returns a picture of the series: lines, or a bar per window if stacked.
// Durations have a logarithmic axis, because percentiles may differ by orders of
// magnitude.
func draw(id, title string, s span, q quantity, all []series, stacked bool) picture {
	p := picture{ID: id, Title: title, Marks: s.marks(), Empty: true}
	lowest, highest := math.Inf(1), 0.0
	for i := range s.n {
		sum := 0.0
		for _, one := range all {
			if v := one.values[i]; !isNull(v) {
				p.Empty = false
				sum, highest = sum+v, max(highest, v)
				lowest = min(lowest, v)
			}
		}
		if stacked {
			highest = max(highest, sum)
		}
	}
	if p.Empty {
		return p
	}
	var place axis
	if q == durations {
		place = p.decades(lowest, highest)
	} else {
		place = p.linear(q, highest)
	}
	if stacked {
		p.stack(s, all, place)
	} else {
		p.lines(all, place, len(all) == 1)
	}
	p.explain(s, q, all, stacked)
	return p
}

// linear returns a linear axis from 0 to a round number, and adds its ticks.
func (p *picture) linear(q quantity, highest float64) axis {
	least := map[quantity]float64{rates: 1, byteRates: 100, shares: 0.01}[q]
	highest = max(highest, least)
	u := q.unitFor(highest)
	const lines = 4
	step := niceStep(highest / u.size / lines)
	count := math.Ceil(highest/u.size/step - 1e-9)
	if most := 1 / u.size; q == shares && count*step > most {
		count = math.Floor(most/step + 1e-9)
	}
	for i := range int(count) + 1 {
		text := join(strconv.FormatFloat(rounded(float64(i)*step), 'f', -1, 64), u.name)
		if i == 0 {
			text = "0"
		}
		p.Ticks = append(p.Ticks, tick{At: 1 - float64(i)/count, Text: text})
	}
	top := count * step * u.size
	return func(v float64) float64 { return v / top }
}

// decades returns a logarithmic axis of durations between powers of ten, and adds its
// ticks.
func (p *picture) decades(lowest, highest float64) axis {
	const shortest, trifle = 1e-5, 1e-9
	bottom := math.Floor(math.Log10(max(lowest, shortest)) + trifle)
	top := max(math.Ceil(math.Log10(max(highest, shortest))-trifle), bottom+1)
	every := math.Ceil((top - bottom) / 4)
	top = bottom + every*math.Ceil((top-bottom)/every)
	for at := bottom; at <= top; at += every {
		text := join(strconv.FormatFloat(rounded(math.Pow(10, at+3)), 'f', -1, 64), "ms")
		if at >= 0 {
			text = join(strconv.FormatFloat(rounded(math.Pow(10, at)), 'f', -1, 64), "s")
		}
		p.Ticks = append(p.Ticks, tick{At: 1 - (at-bottom)/(top-bottom), Text: text})
	}
	return func(v float64) float64 {
		return (math.Log10(max(v, math.Pow(10, bottom))) - bottom) / (top - bottom)
	}
}

// niceStep rounds v up to 1, 2, 2.5 or 5 times a power of ten.
func niceStep(v float64) float64 {
	power := math.Pow(10, math.Floor(math.Log10(v)))
	for _, digit := range []float64{1, 2, 2.5, 5} {
		if digit*power >= v-1e-12 {
			return rounded(digit * power)
		}
	}
	return rounded(10 * power)
}

// rounded rounds v to three significant digits, to remove floating-point errors.
func rounded(v float64) float64 {
	v, _ = strconv.ParseFloat(strconv.FormatFloat(v, 'g', 3, 64), 64)
	return v
}

// pen builds an SVG path.
type pen struct{ text []byte }

// write appends a path command with its arguments.
func (p *pen) write(command byte, numbers ...float64) {
	p.text = append(p.text, command)
	for i, v := range numbers {
		if i > 0 {
			p.text = append(p.text, ' ')
		}
		p.text = strconv.AppendInt(p.text, int64(math.Round(v)), 10)
	}
}

// lines draws each series through the centers of its windows. Windows without data are
// gaps; a window between two gaps is a dot. If filled, the area below the line is
// filled.
func (p *picture) lines(all []series, place axis, filled bool) {
	for _, one := range all {
		var stroke, dots, area pen
		n := len(one.values)
		for i := 0; i < n; i++ {
			began := i
			for ; i < n && !isNull(one.values[i]); i++ {
				x, y := side*(float64(i)+0.5)/float64(n), height(place(one.values[i]))
				switch {
				case i > began:
					stroke.write('L', x, y)
					area.write('L', x, y)
				case i+1 == n || isNull(one.values[i+1]):
					dots.write('M', x, y)
					dots.write('h', 0)
				default:
					stroke.write('M', x, y)
					area.write('M', x, side)
					area.write('V', y)
				}
			}
			if i > began+1 {
				area.write('V', side)
				area.write('Z')
			}
		}
		if filled {
			p.Shapes = append(p.Shapes, shape{"area " + one.class, string(area.text)})
		}
		p.Shapes = append(p.Shapes, shape{"line " + one.class, string(stroke.text)}, shape{"line dot " + one.class, string(dots.text)})
	}
}

// height converts a position on an axis to an SVG y coordinate.
func height(at float64) float64 { return side * (1 - at) }

// stack draws a stacked bar for each window, with the first series at the bottom.
func (p *picture) stack(s span, all []series, place axis) {
	below := make([]float64, s.n)
	width := side / float64(s.n)
	gap := width * 0.14
	for _, one := range all {
		var bars pen
		for i, v := range one.values {
			if isNull(v) {
				continue
			}
			from, to := height(place(below[i])), height(place(below[i]+v))
			below[i] += v
			if math.Round(from) == math.Round(to) {
				continue // less than a unit high
			}
			x := float64(i)*width + gap/2
			bars.write('M', x, from)
			bars.write('V', to)
			bars.write('H', x+width-gap)
			bars.write('V', from)
			bars.write('Z')
		}
		p.Shapes = append(p.Shapes, shape{"bar " + one.class, string(bars.text)})
	}
}

// explain adds the legend, the tooltips and the data table.
func (p *picture) explain(s span, q quantity, all []series, stacked bool) {
	p.Head = []string{"From"}
	for _, one := range all {
		p.Head = append(p.Head, one.name)
		if len(all) > 1 {
			p.Legend = append(p.Legend, entry{one.class, one.name, one.value})
		}
	}
	if stacked && len(all) > 1 {
		p.Head = append(p.Head, "Together")
	}
	p.Rows = make([]row, s.n)
	for i := range s.n {
		line := row{Time: s.clock(s.start(i)), Cells: make([]string, 0, len(p.Head)-1)}
		var said strings.Builder
		said.WriteString(line.Time)
		sum := null
		for _, one := range all {
			v := one.values[i]
			text := q.text(v)
			line.Cells = append(line.Cells, text)
			if isNull(v) {
				continue
			}
			if isNull(sum) {
				sum = 0
			}
			if sum += v; v > 0 || !stacked {
				said.WriteString("\n" + one.name + ": " + text)
			}
		}
		if stacked && len(all) > 1 {
			line.Cells = append(line.Cells, q.text(sum))
			said.WriteString("\nTotal: " + q.text(sum))
		}
		if i == s.n-1 {
			line.Time += " (until now)"
		}
		p.Rows[s.n-1-i] = line
		if !isNull(sum) {
			x := side * i / s.n
			p.Columns = append(p.Columns, column{X: x, Width: side*(i+1)/s.n - x, Text: said.String()})
		}
	}
}

// describe returns a summary of a row of values for the alternative text.
func describe(s span, q quantity, values []float64) string {
	most, at, last := null, 0, null
	for i, v := range values {
		if isNull(v) {
			continue
		}
		if isNull(most) || v > most {
			most, at = v, i
		}
		last = v
	}
	if isNull(most) {
		return "nothing was recorded"
	}
	return "at most " + q.text(most) + " at " + s.clock(s.start(at)) + ", lately " + q.text(last)
}
