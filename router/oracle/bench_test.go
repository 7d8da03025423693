package oracle

import (
	"testing"

	"github.com/cstproxy/cstproxy/router"
)

// hundred is a SELECT of 100 bytes.
const hundred = "SELECT a.id, a.name, count(*) FROM accounts a JOIN t USING (id) WHERE a.id = $1 AND a.x > now() - $2"

func benchmark(b *testing.B, cfg router.Config) {
	if len(hundred) != 100 {
		b.Fatal(len(hundred))
	}
	c, text := router.New(cfg), []byte(hundred)
	if v := c.Classify(text, router.Env{}); v.Route.Target != router.Standby {
		b.Fatal(v.Route)
	}
	b.ReportAllocs()
	for b.Loop() {
		c.Classify(text, router.Env{})
	}
}

func BenchmarkClassifyUncached(b *testing.B) { benchmark(b, router.Config{}) }

func BenchmarkClassifyCached(b *testing.B) { benchmark(b, router.DefaultConfig()) }

// BenchmarkGrammar is what the same decision costs with the real grammar.
func BenchmarkGrammar(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Parse(hundred, Standard); err != nil {
			b.Fatal(err)
		}
	}
}
