package main

import (
	"encoding/xml"
	"fmt"
	"math"
	"strings"
)

// Measures of the chart, in its own units.
const (
	width, left, right = 900, 300, 70
	barHeight, rowStep = 18, 30
	headStep           = 34
)

// Colours that are seen on white and on black.
var palette = [...]string{"#3b82f6", "#14b8a6", "#f59e0b", "#ef4444", "#8b5cf6", "#64748b"}

// draw is a bar for each group: its median phases one after the other, and a line to the longest run.
func draw(groups []group) string {
	longest, height, last := 0.0, 20, ""
	for _, g := range groups {
		longest = max(longest, g.outage().Max)
		if g.Event != last {
			height, last = height+headStep, g.Event
		}
		height += rowStep
	}
	scale := (width - left - right) / math.Max(longest, 0.001)
	colours := map[string]string{}
	var order []string
	var b strings.Builder
	y := 10
	last = ""
	for _, g := range groups {
		if g.Event != last {
			y, last = y+headStep, g.Event
			fmt.Fprintf(&b, "<text x=\"10\" y=\"%d\" class=\"head\">%s</text>\n", y-10, escape(g.Event))
		}
		names, _ := g.phases()
		for _, name := range names {
			if colours[name] == "" {
				colours[name] = palette[len(order)%len(palette)]
				order = append(order, name)
			}
		}
		b.WriteString(bar(g, y, scale, colours))
		y += rowStep
	}
	for _, name := range order {
		y += 20
		fmt.Fprintf(&b, "<rect x=\"10\" y=\"%d\" width=\"12\" height=\"12\" fill=\"%s\"/><text x=\"28\" y=\"%d\">%s</text>\n", y, colours[name], y+11, escape(name))
	}
	fmt.Fprintf(&b, "<text x=\"10\" y=\"%d\">Seconds without an acknowledged write: bars are medians of the phases, lines reach from the shortest run to the longest.</text>\n", y+34)
	return fmt.Sprintf("<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %d\" font-family=\"sans-serif\" font-size=\"13\">\n"+
		"<style>text{fill:#6b7280}.head{font-weight:bold;font-size:14px}</style>\n%s</svg>\n", width, y+46, b.String())
}

func bar(g group, y int, scale float64, colours map[string]string) string {
	var b strings.Builder
	names, took := g.phases()
	fmt.Fprintf(&b, "<text x=\"%d\" y=\"%d\" text-anchor=\"end\">%s</text>\n", left-10, y+14, escape(g.title()))
	outage := g.outage()
	sum := 0.0
	for _, s := range took {
		sum += s.Median
	}
	x := float64(left)
	for i, name := range names {
		// Medians of parts do not add up to the median of the whole, which is what the bar's length says.
		w := took[i].Median / max(sum, 0.001) * outage.Median * scale
		fmt.Fprintf(&b, "<rect x=\"%.1f\" y=\"%d\" width=\"%.1f\" height=\"%d\" fill=\"%s\"><title>%s: %.2f s</title></rect>\n",
			x, y, w, barHeight, colours[name], escape(name), took[i].Median)
		x += w
	}
	middle := y + barHeight/2
	fmt.Fprintf(&b, "<path d=\"M%.1f %dH%.1f\" stroke=\"#6b7280\" stroke-width=\"2\"/>\n", left+outage.Min*scale, middle, left+outage.Max*scale)
	fmt.Fprintf(&b, "<text x=\"%.1f\" y=\"%d\">%.2f</text>\n", left+outage.Max*scale+8, y+14, outage.Median)
	return b.String()
}

func escape(text string) string {
	var b strings.Builder
	_ = xml.EscapeText(&b, []byte(text)) // a strings.Builder takes everything
	return b.String()
}
