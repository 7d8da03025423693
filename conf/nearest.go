package conf

import "strings"

// maxWord bounds the work in bytes; no key of ours is half as long.
const maxWord = 64

// nearest returns the candidate with the smallest edit distance to word; "" when there is none.
// A candidate that merely says more or less (pool / pool_size) counts as near.
func nearest(word string, candidates []string) string {
	word = word[:min(len(word), maxWord)]
	best, bestCost := "", 1<<30
	for _, c := range candidates {
		cost := 2 * distance(word, c)
		if strings.HasPrefix(c, word) || strings.HasPrefix(word, c) {
			cost = min(cost, 3)
		}
		if cost < bestCost {
			best, bestCost = c, cost
		}
	}
	return best
}

// distance counts the insertions, deletions, replacements and swaps of neighbours between a and b.
func distance(a, b string) int {
	rows := make([][]int, len(a)+1)
	for i := range rows {
		rows[i] = make([]int, len(b)+1)
		rows[i][0] = i
	}
	for j := range rows[0] {
		rows[0][j] = j
	}
	for i := 1; i <= len(a); i++ {
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			rows[i][j] = min(rows[i-1][j]+1, rows[i][j-1]+1, rows[i-1][j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				rows[i][j] = min(rows[i][j], rows[i-2][j-2]+1)
			}
		}
	}
	return rows[len(a)][len(b)]
}
