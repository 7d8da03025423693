package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"
	"github.com/spf13/cobra"
)

// format is a way to print a report. It is a pflag.Value.
type format string

const (
	formatTable format = "table"
	formatJSON  format = "json"
	formatYAML  format = "yaml"
	formatTSV   format = "tsv"
)

func (f *format) String() string { return string(*f) }
func (f *format) Type() string   { return "format" }

func (f *format) Set(s string) error {
	switch format(s) {
	case formatTable, formatJSON, formatYAML, formatTSV:
		*f = format(s)
		return nil
	}
	return fmt.Errorf("want table, json, yaml or tsv")
}

func formatFlag(cmd *cobra.Command, into *format) {
	cmd.Flags().VarP(into, "output", "o", "output format: table, json, yaml or tsv")
	names := []string{string(formatTable), string(formatJSON), string(formatYAML), string(formatTSV)}
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(names, cobra.ShellCompDirectiveNoFileComp))
}

// report is one answer: data for programs (json, yaml), tables for people and for awk (tsv).
type report struct {
	data   any
	tables []printable
}

// column is a heading; numbers stand at the right.
type column struct {
	name  string
	right bool
}

// printable is one table of a report. The title is printed above it as CLup does.
type printable struct {
	title   string
	columns []column
	rows    [][]string
}

func (r report) print(out io.Writer, f format) error {
	var b bytes.Buffer
	switch f {
	case formatJSON:
		enc := json.NewEncoder(&b)
		enc.SetIndent("", "  ")
		enc.SetEscapeHTML(false)
		if err := enc.Encode(r.data); err != nil {
			return fmt.Errorf("write json: %w", err)
		}
	case formatYAML:
		if err := writeYAML(&b, r.data); err != nil {
			return err
		}
	case formatTSV:
		for i, t := range r.tables {
			if i > 0 {
				b.WriteByte('\n')
			}
			t.tsv(&b)
		}
	default:
		for i, t := range r.tables {
			if i > 0 {
				b.WriteByte('\n')
			}
			t.pretty(&b)
		}
	}
	_, err := out.Write(b.Bytes())
	return err
}

const titleRule = 50 // characters of "=" under a title, as in CLup's output

// pretty writes the table as psql and CLup do: a heading, a rule, no borders.
func (t printable) pretty(b *bytes.Buffer) {
	if t.title != "" {
		fmt.Fprintf(b, "%*s\n%s\n", (titleRule+len(t.title))/2, t.title, strings.Repeat("=", titleRule))
	}
	w := table.NewWriter()
	style := table.StyleDefault
	style.Name = "cstproxy"
	style.Box.PaddingLeft, style.Box.PaddingRight = "", ""
	style.Box.MiddleVertical, style.Box.MiddleSeparator = " ", " "
	style.Box.MiddleHorizontal = "-"
	style.Options = table.Options{SeparateColumns: true, SeparateHeader: true}
	style.Format.Header = text.FormatDefault
	w.SetStyle(style)
	header := table.Row{}
	var configs []table.ColumnConfig
	for i, c := range t.columns {
		header = append(header, c.name)
		align := text.AlignLeft
		if c.right {
			align = text.AlignRight
		}
		configs = append(configs, table.ColumnConfig{Number: i + 1, Align: align, AlignHeader: align})
	}
	w.AppendHeader(header)
	w.SetColumnConfigs(configs)
	for _, cells := range t.rows {
		row := table.Row{}
		for _, c := range cells {
			row = append(row, c)
		}
		w.AppendRow(row)
	}
	w.SuppressTrailingSpaces()
	b.WriteString(w.Render())
	b.WriteByte('\n')
}

// tsv writes a heading and the rows; tabs and line ends inside a cell become \t and \n.
func (t printable) tsv(b *bytes.Buffer) {
	escape := strings.NewReplacer("\t", `\t`, "\n", `\n`, "\r", `\r`, `\`, `\\`)
	line := make([]string, len(t.columns))
	for i, c := range t.columns {
		line[i] = c.name
	}
	b.WriteString(strings.Join(line, "\t") + "\n")
	for _, cells := range t.rows {
		for i, c := range cells {
			line[i] = escape.Replace(c)
		}
		b.WriteString(strings.Join(line, "\t") + "\n")
	}
}
