package main

import (
	"encoding/xml"
	"errors"
	"io"
	"strings"
	"testing"
)

const lines = `{"at":"2026-01-02T03:04:05Z","contender":"a","preset":"x","event":"crash","load":"0.5","outage_ms":1000,"phases":[{"name":"noticed","ms":400},{"name":"<done>","ms":600}]}
{"at":"2026-01-02T03:05:05Z","contender":"b","preset":"y","event":"power | net","load":"2.5","outage_ms":9000,"phases":[{"name":"noticed","ms":9000}]}
{"at":"2026-01-02T03:06:05Z","contender":"a","preset":"x","event":"crash","load":"?","outage_ms":3000,"unknown":2,"longest_ms":1500,"machine":"2 cores","marks":[{"name":"back","ms":7000}],"broken":["two primaries"],"phases":[{"name":"noticed","ms":1000},{"name":"<done>","ms":2000}]}
{"at":"2026-01-02T03:07:05Z","contender":"a","preset":"x","event":"crash","load":"1","failed":"a primary","outage_ms":0}
`

func TestRunsOfOneEventAreOneRow(t *testing.T) {
	runs, err := read(strings.NewReader(lines))
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	groups := gather(runs)
	tell(&out, runs, groups)
	for _, want := range []string{
		"4 runs from 2026-01-02 03:04 to 03:07 UTC, 1 of them failed; load average 0.5 to 2.5",
		"Machine: 2 cores.",
		"| crash | a, x | 3 | 1 | 1.00 | 2.00 | 3.00 | 3.00 | 0.75 | 1.50 | | |",
		"| power \\| net | b, y | 1 | 0 | 9.00 | 9.00 | 9.00 | 9.00 | | | | |",
		"| crash | a, x | <done> | 0.60 | 1.30 | 2.00 | 2.00 |",
		"| crash | a, x | back | 7.00 | 7.00 | 7.00 | 7.00 |",
		"waited in vain for a primary",
		"two primaries",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
	if _, err := read(strings.NewReader(lines + "x\n")); err == nil || !strings.Contains(err.Error(), "line 5") {
		t.Errorf("a bad line: %v", err)
	}
}

func TestTheChartIsXML(t *testing.T) {
	runs, err := read(strings.NewReader(lines))
	if err != nil {
		t.Fatal(err)
	}
	bars := 0
	chart := xml.NewDecoder(strings.NewReader(draw(gather(runs))))
	for {
		token, err := chart.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if e, ok := token.(xml.StartElement); ok && e.Name.Local == "rect" {
			bars++
		}
	}
	if bars != 3+2 { // phases, and the legend
		t.Errorf("%d boxes in the chart", bars)
	}
}
