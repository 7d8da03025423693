package oracle

import "testing"

func TestBackslashesAreReadAsTheSettingSays(t *testing.T) {
	const text = `SELECT '\', 'x'`
	if _, err := Parse(text, Standard); err != nil {
		t.Error(err)
	}
	if _, err := Parse(text, Escape); err == nil {
		t.Error("an unterminated constant was read")
	}
	if _, err := Parse(`SELECT '\'', 1`, Escape); err != nil {
		t.Error(err)
	}
}
