package dashboard

import (
	"math"
	"strconv"
	"strings"
)

// A picture is drawn as SVG within the page: strokes keep their width and text its
// size while the drawing area takes the width that there is, and the colours are
// those of the style sheet, so that one picture serves both schemes.
type picture struct {
	ID, Title string
	Alt       string // what is to be seen
	Total     string // over the whole span
	Empty     bool   // nothing is known

	Ticks   []tick
	Marks   []mark
	Shapes  []shape
	Columns []column
	Legend  []entry

	Head []string
	Rows []row // what the picture shows, the newest first
}

// tick is a line across with a label beside.
type tick struct {
	At   float64 // 0 to 1, from above
	Text string
}

// shape is a path in a square of side units by side.
type shape struct {
	Class string
	Path  string
}

// column is where the pointer asks for the figures of a window.
type column struct {
	X, Width int
	Text     string
}

// entry explains a colour.
type entry struct {
	Class, Name, Value string
}

// row is a line of the table behind a picture.
type row struct {
	Time  string
	Cells []string
}

// series is a line of a picture, or a layer of it.
type series struct {
	name   string
	class  string // of colour
	values []float64
	value  string // in the legend
}

// side is the length of the drawing area's sides in its own units.
const side = 1000

// draw begins a picture of series, of which the sum or the highest has to fit.
func draw(id, title string, s span, q quantity, all []series, stacked bool) picture {
	p := picture{ID: id, Title: title, Marks: s.marks(), Empty: true}
	highest := 0.0
	for i := range s.n {
		sum := 0.0
		for _, one := range all {
			if v := one.values[i]; !isNull(v) {
				p.Empty = false
				sum, highest = sum+v, max(highest, v)
			}
		}
		if stacked {
			highest = max(highest, sum)
		}
	}
	top := p.scale(q, highest)
	if stacked {
		p.stack(s, all, top)
	} else {
		p.lines(s, all, top, len(all) == 1)
	}
	p.explain(s, q, all, stacked)
	return p
}

// scale chooses the value at the upper edge, and where the lines across are.
func (p *picture) scale(q quantity, highest float64) (top float64) {
	least := map[quantity]float64{rates: 1, byteRates: 100, byteCounts: 100, shares: 0.01, durations: 0.001, requestCounts: 1}[q]
	highest = max(highest, least)
	if q == shares {
		highest = min(highest, 1)
	}
	u := q.unitFor(highest)
	const lines = 4
	step := niceStep(highest / u.size / lines)
	count := math.Ceil(highest/u.size/step - 1e-9)
	top = count * step
	for i := range int(count) + 1 {
		v := float64(i) * step
		text := join(strconv.FormatFloat(v, 'f', -1, 64), u.name)
		if i == 0 {
			text = "0"
		}
		p.Ticks = append(p.Ticks, tick{At: 1 - v/top, Text: text})
	}
	return top * u.size
}

// niceStep is the next larger of 1, 2, 5 times a power of ten.
func niceStep(v float64) float64 {
	power := math.Pow(10, math.Floor(math.Log10(v)))
	for _, digit := range []float64{1, 2, 2.5, 5} {
		if digit*power >= v-1e-12 {
			return rounded(digit * power)
		}
	}
	return rounded(10 * power)
}

// rounded takes away what floating point has added.
func rounded(v float64) float64 {
	v, _ = strconv.ParseFloat(strconv.FormatFloat(v, 'g', 3, 64), 64)
	return v
}

// pen writes the data of a path.
type pen struct{ text []byte }

func (p *pen) move(command byte, numbers ...float64) {
	p.text = append(p.text, command)
	for i, v := range numbers {
		if i > 0 {
			p.text = append(p.text, ' ')
		}
		p.text = strconv.AppendInt(p.text, int64(math.Round(v)), 10)
	}
}

// lines draws each series through the middles of its windows, with a gap where
// nothing is known, and if filled the area below.
func (p *picture) lines(s span, all []series, top float64, filled bool) {
	for _, one := range all {
		var stroke, area pen
		var from, at float64
		open := false
		end := func() {
			if open {
				area.move('V', side)
				area.move('H', from)
				area.move('Z')
			}
			open = false
		}
		for i, v := range one.values {
			if isNull(v) {
				end()
				continue
			}
			x, y := middle(i, s.n), side*(1-v/top)
			if !open {
				open, from = true, x
				stroke.move('M', x, y)
				stroke.move('H', x) // a dot, if nothing follows
				area.move('M', x, side)
			}
			stroke.move('L', x, y)
			area.move('L', x, y)
			at = x
		}
		end()
		_ = at
		if filled {
			p.Shapes = append(p.Shapes, shape{"area " + one.class, string(area.text)})
		}
		p.Shapes = append(p.Shapes, shape{"line " + one.class, string(stroke.text)})
	}
}

func middle(i, n int) float64 { return side * (float64(i) + 0.5) / float64(n) }

// stack draws a bar for each window, with the first series below.
func (p *picture) stack(s span, all []series, top float64) {
	below := make([]float64, s.n)
	width := side / float64(s.n)
	gap := width * 0.14
	for _, one := range all {
		var bars pen
		for i, v := range one.values {
			if isNull(v) || v == 0 {
				continue
			}
			x := float64(i)*width + gap/2
			from, to := side*(1-below[i]/top), side*(1-(below[i]+v)/top)
			below[i] += v
			if math.Round(from) == math.Round(to) {
				continue // nothing to be seen
			}
			bars.move('M', x, from)
			bars.move('V', to)
			bars.move('H', x+width-gap)
			bars.move('V', from)
			bars.move('Z')
		}
		p.Shapes = append(p.Shapes, shape{"bar " + one.class, string(bars.text)})
	}
}

// explain makes what is said beside the picture: the legend, the figures at the
// pointer, and the table.
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
			said.WriteString("\nTogether: " + q.text(sum))
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

// describe says in words what a row of values looks like.
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
