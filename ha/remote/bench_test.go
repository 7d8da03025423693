package remote

import "testing"

// BenchmarkAsk and BenchmarkDo say what a question and an action cost on a kept connection to this
// machine, over and above what they run, which is nothing.
func BenchmarkAsk(b *testing.B) {
	h, _ := installed(b)
	for b.Loop() {
		if _, err := h.Ask(b.Context(), []string{"true"}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDo(b *testing.B) {
	h, _ := installed(b)
	for b.Loop() {
		if _, err := h.Do(b.Context(), token(1, 1), Command{Argv: []string{"true"}}); err != nil {
			b.Fatal(err)
		}
	}
}
