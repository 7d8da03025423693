package main

import (
	"encoding/xml"
	"fmt"
	"math"
	"strings"
)

// Measures of the chart, in its own units.
const (
	width, right       = 900, 60
	letter             = 6.4 // a wide guess
	barHeight, rowStep = 16, 24
	headStep           = 30
	ticks              = 8 // at most
)

// Colours that are seen on white and on black.
var palette = [...]string{"#3b82f6", "#14b8a6", "#f59e0b", "#ef4444", "#8b5cf6", "#0ea5e9", "#ec4899", "#84cc16", "#64748b"}

// style: grey is read on white and on black, where nobody says which it is.
const style = `text{fill:#57606a}.head{font-weight:600;font-size:13px}.grid{stroke:#8b949e;stroke-opacity:.3}.range{stroke:#57606a;stroke-width:1.5}` +
	`@media(prefers-color-scheme:dark){text{fill:#adbac7}.range{stroke:#adbac7}}`

// chart is a drawing under way.
type chart struct {
	strings.Builder
	left    float64 // where the bars begin
	scale   float64 // units per second
	colours map[string]string
	order   []string // of the phases
}

// draw is a bar for each group: its median phases one after the other, and a line from the shortest run
// to the longest.
func draw(groups []group) string {
	longest, title := 0.001, 0
	for _, g := range groups {
		longest, title = math.Max(longest, g.outage().Max), max(title, len(g.title()))
	}
	c := &chart{left: 18 + letter*float64(title), colours: map[string]string{}}
	c.scale = (width - c.left - right) / longest
	y, last := 10, ""
	for _, g := range groups {
		if len(g.good()) == 0 {
			continue
		}
		if g.Event != last {
			y, last = y+headStep, g.Event
			fmt.Fprintf(c, "<text x=\"10\" y=\"%d\" class=\"head\">%s</text>\n", y-8, escape(g.Event))
		}
		c.bar(g, y)
		y += rowStep
	}
	grid := c.axis(longest, y+4)
	y += 26
	fmt.Fprintf(c, "<text x=\"10\" y=\"%d\">seconds without an acknowledged write; bars: median phases, lines: shortest to longest run</text>\n", y)
	y = c.legend(y)
	return fmt.Sprintf("<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %d\" font-family=\"system-ui,sans-serif\" font-size=\"12\">\n<style>%s</style>\n%s%s</svg>\n",
		width, y+14, style, grid, c.String())
}

// axis is vertical lines with their seconds below, down to y.
func (c *chart) axis(longest float64, y int) string {
	step := math.Pow(10, math.Floor(math.Log10(longest)))
	for _, finer := range []float64{0.1, 0.2, 0.5} {
		if longest/(step*finer) <= ticks {
			step *= finer
			break
		}
	}
	decimals := int(math.Max(0, math.Ceil(-math.Log10(step)-1e-9)))
	var b strings.Builder
	for i := 0; float64(i)*step <= longest; i++ {
		x := c.left + float64(i)*step*c.scale
		fmt.Fprintf(&b, "<path class=\"grid\" d=\"M%.1f 24V%d\"/><text x=\"%.1f\" y=\"%d\" text-anchor=\"middle\" font-size=\"11\">%.*f s</text>\n",
			x, y-6, x, y+6, decimals, float64(i)*step)
	}
	return b.String()
}

func (c *chart) bar(g group, y int) {
	names, took := g.phases()
	fmt.Fprintf(c, "<text x=\"%.0f\" y=\"%d\" text-anchor=\"end\">%s</text>\n", c.left-8, y+12, escape(g.title()))
	outage := g.outage()
	sum := 0.0
	for _, s := range took {
		sum += s.Median
	}
	x := c.left
	for i, name := range names {
		// Medians of parts do not add up to the median of the whole, which is what the bar's length says.
		w := took[i].Median / math.Max(sum, 0.001) * outage.Median * c.scale
		fmt.Fprintf(c, "<rect x=\"%.1f\" y=\"%d\" width=\"%.1f\" height=\"%d\" fill=\"%s\"><title>%s: %.2f s</title></rect>\n",
			x, y, w, barHeight, c.colour(name), escape(name), took[i].Median)
		x += w
	}
	middle := y + barHeight/2
	fmt.Fprintf(c, "<path class=\"range\" d=\"M%.1f %dH%.1fM%.1f %dv8M%.1f %dv8\" fill=\"none\"/>\n", c.left+outage.Min*c.scale, middle, c.left+outage.Max*c.scale,
		c.left+outage.Min*c.scale, middle-4, c.left+outage.Max*c.scale, middle-4)
	fmt.Fprintf(c, "<text x=\"%.1f\" y=\"%d\">%.2f s</text>\n", c.left+outage.Max*c.scale+6, y+12, outage.Median)
}

func (c *chart) colour(phase string) string {
	if c.colours[phase] == "" {
		c.colours[phase] = palette[len(c.order)%len(palette)]
		c.order = append(c.order, phase)
	}
	return c.colours[phase]
}

// legend is the phases' names, two in a line; it returns where it ends.
func (c *chart) legend(y int) int {
	for i, name := range c.order {
		x := 10 + i%2*width/2
		if i%2 == 0 {
			y += 18
		}
		fmt.Fprintf(c, "<rect x=\"%d\" y=\"%d\" width=\"11\" height=\"11\" fill=\"%s\"/><text x=\"%d\" y=\"%d\">%s</text>\n", x, y-10, c.colours[name], x+17, y, escape(name))
	}
	return y
}

func escape(text string) string {
	var b strings.Builder
	_ = xml.EscapeText(&b, []byte(text)) // a strings.Builder takes everything
	return b.String()
}
