package conf

import (
	"encoding"
	"fmt"
	"math"
	"reflect"
	"strconv"
	"strings"
	"time"
)

// What a field of a Config may be, and how it is written. The packages declare plain Go types; the
// notation belongs here:
//
//	time.Duration             "500ms", "1m30s"; 0 without a unit
//	int64, and …_bytes        a size in bytes: "64MB", or a plain number of bytes
//	int, uint, float, NodeID  a number
//	string, bool              themselves
//	anything that unmarshals  from text (enums, addresses): a string
//	struct, slice, map        a table, an array, a table
const maxText = 64 << 10 // bytes; nothing that is configured is longer, and a report must stay readable

// sizeUnits are powers of 1024, as in postgresql.conf.
func sizeUnits() []struct {
	name string
	size int64
} {
	return []struct {
		name string
		size int64
	}{{"TB", 1 << 40}, {"GB", 1 << 30}, {"MB", 1 << 20}, {"KB", 1 << 10}, {"B", 1}}
}

func parseSize(text string) (int64, error) {
	digits := strings.TrimRight(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ ")
	unit := strings.ToUpper(strings.TrimSpace(text[len(digits):]))
	unit = strings.Replace(unit, "IB", "B", 1)
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil {
		return 0, fmt.Errorf(`%q is not a size; write it like "64MB"`, text)
	}
	if unit == "" {
		return n, nil
	}
	for _, u := range sizeUnits() {
		if u.name != unit {
			continue
		}
		if n > math.MaxInt64/u.size || n < math.MinInt64/u.size {
			return 0, fmt.Errorf("the size %q is too large", text)
		}
		return n * u.size, nil
	}
	return 0, fmt.Errorf("%q has an unknown unit; the units are B, kB, MB, GB and TB", text)
}

func formatSize(n int64) string {
	for _, u := range sizeUnits() {
		if n != 0 && u.size > 1 && n%u.size == 0 {
			return strconv.FormatInt(n/u.size, 10) + strings.Replace(u.name, "K", "k", 1)
		}
	}
	return strconv.FormatInt(n, 10)
}

func parseDuration(text string) (time.Duration, error) {
	d, err := time.ParseDuration(strings.ReplaceAll(text, " ", ""))
	if err != nil {
		return 0, fmt.Errorf(`%q is not a duration; write it like "500ms", "10s" or "1h30m"`, text)
	}
	return d, nil
}

// formatDuration leaves out what is zero: 1m, not 1m0s.
func formatDuration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = s[:len(s)-2]
	}
	if strings.HasSuffix(s, "h0m") {
		s = s[:len(s)-2]
	}
	return s
}

// isSize says whether the field of this name and type takes a number of bytes.
func isSize(name string, t reflect.Type) bool {
	if t == reflect.TypeFor[int64]() {
		return true
	}
	return strings.HasSuffix(name, "_bytes") && t.Kind() >= reflect.Int && t.Kind() <= reflect.Uint64
}

// setScalar writes a value as the TOML library decodes it (string, int64, float64, bool, time) into
// a field of this name that is no table and no array. The error is a sentence for the operator.
func setScalar(name string, in any, out reflect.Value) error {
	text, isText := in.(string)
	if len(text) > maxText {
		return fmt.Errorf("the text has %d bytes; at most %d make sense here", len(text), maxText)
	}
	if u, ok := out.Addr().Interface().(encoding.TextUnmarshaler); ok {
		if !isText {
			return fmt.Errorf("%v is not a text in quotes", in)
		}
		return u.UnmarshalText([]byte(text))
	}
	switch {
	case out.Type() == reflect.TypeFor[time.Duration]():
		return setDuration(in, out)
	case isSize(name, out.Type()) && isText:
		n, err := parseSize(text)
		if err != nil {
			return err
		}
		return setNumber(n, out)
	}
	switch out.Kind() {
	case reflect.String:
		if !isText {
			return fmt.Errorf("%v is not a text in quotes", in)
		}
		out.SetString(text)
		return nil
	case reflect.Bool:
		b, ok := in.(bool)
		if !ok {
			return fmt.Errorf("%s is neither true nor false", quote(in))
		}
		out.SetBool(b)
		return nil
	}
	return setNumber(in, out)
}

func setDuration(in any, out reflect.Value) error {
	if n, ok := in.(int64); ok {
		if n != 0 {
			return fmt.Errorf(`%d has no unit; write a duration like "%dms" or "%ds"`, n, n, n)
		}
		out.SetInt(0)
		return nil
	}
	text, ok := in.(string)
	if !ok {
		return fmt.Errorf(`%v is not a duration; write it like "500ms", "10s" or "1h30m"`, in)
	}
	d, err := parseDuration(text)
	if err != nil {
		return err
	}
	out.SetInt(int64(d))
	return nil
}

func setNumber(in any, out reflect.Value) error {
	switch out.Kind() {
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		n, ok := in.(int64)
		if !ok {
			return fmt.Errorf("%s is not a whole number", quote(in))
		}
		if out.OverflowInt(n) {
			return fmt.Errorf("%d is too large", n)
		}
		out.SetInt(n)
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		n, ok := in.(int64)
		if !ok || n < 0 {
			return fmt.Errorf("%s is not a whole number from 0 upwards", quote(in))
		}
		if out.OverflowUint(uint64(n)) {
			return fmt.Errorf("%d is too large", n)
		}
		out.SetUint(uint64(n))
	case reflect.Float32, reflect.Float64:
		switch n := in.(type) {
		case int64:
			out.SetFloat(float64(n))
		case float64:
			out.SetFloat(n)
		default:
			return fmt.Errorf("%s is not a number", quote(in))
		}
	default:
		return fmt.Errorf("a value of this kind cannot be configured")
	}
	return nil
}

// fromEnvironment turns the text of an environment variable into what the file would have given.
func fromEnvironment(text string, kind reflect.Type) any {
	if reflect.PointerTo(kind).Implements(reflect.TypeFor[encoding.TextUnmarshaler]()) {
		return text
	}
	switch kind.Kind() {
	case reflect.Bool:
		if b, err := strconv.ParseBool(text); err == nil {
			return b
		}
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		if n, err := strconv.ParseInt(text, 10, 64); err == nil {
			return n
		}
	case reflect.Float32, reflect.Float64:
		if n, err := strconv.ParseFloat(text, 64); err == nil {
			return n
		}
	case reflect.Slice:
		list := []any{}
		for _, part := range strings.Split(text, ",") {
			if part = strings.TrimSpace(part); part != "" {
				list = append(list, fromEnvironment(part, kind.Elem()))
			}
		}
		return list
	}
	return text
}

// show writes the value of the key of this name as the file would have it.
func show(name string, v reflect.Value) string {
	if d, ok := v.Interface().(time.Duration); ok {
		return strconv.Quote(formatDuration(d))
	}
	if text, ok := marshalText(v); ok {
		return strconv.Quote(text)
	}
	if v.Kind() == reflect.Slice {
		parts := make([]string, v.Len())
		for i := range parts {
			parts[i] = show(name, v.Index(i))
		}
		return "[" + strings.Join(parts, ", ") + "]"
	}
	switch {
	case isSize(name, v.Type()) && v.CanInt():
		if s := formatSize(v.Int()); strings.HasSuffix(s, "B") {
			return strconv.Quote(s)
		}
	case v.Kind() == reflect.String:
		return strconv.Quote(v.String())
	}
	return fmt.Sprint(v.Interface())
}

func marshalText(v reflect.Value) (string, bool) {
	m, ok := v.Interface().(encoding.TextMarshaler)
	if ok {
		if b, err := m.MarshalText(); err == nil {
			return string(b), true
		}
		return "", false
	}
	// An enum that reads text but only prints itself by String.
	s, prints := v.Interface().(fmt.Stringer)
	if prints && reflect.PointerTo(v.Type()).Implements(reflect.TypeFor[encoding.TextUnmarshaler]()) {
		return s.String(), true
	}
	return "", false
}

func quote(in any) string {
	if s, ok := in.(string); ok {
		return strconv.Quote(s)
	}
	return fmt.Sprint(in)
}
