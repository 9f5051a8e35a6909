package options

import (
	"slices"
	"strings"
)

// synonyms maps words of other systems to words in option names.
var synonyms = map[string]string{"remove": "delete"}

// Suggest returns a suffix for an error that suggests the known word closest to word: `
// (did you mean "payment"?)`. It is empty if the edit distance exceeds a third of the
// length of word by more than one.
func Suggest(word string, known []string) string {
	if other := synonyms[strings.ToLower(word)]; other != "" && slices.Contains(known, other) {
		return ` (did you mean "` + other + `"?)`
	}
	best, least := "", len(word)/3+2
	for _, candidate := range known {
		distance := EditDistance(strings.ToLower(word), strings.ToLower(candidate))
		if distance < least {
			best, least = candidate, distance
		}
	}
	if best == "" {
		return ""
	}
	return ` (did you mean "` + best + `"?)`
}

// EditDistance returns the minimum number of insertions, deletions, substitutions and
// transpositions of adjacent characters that turn a into b (optimal string alignment).
// It counts bytes.
func EditDistance(a, b string) int {
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			replace := last[j-1]
			if a[i-1] != b[j-1] {
				replace++
			}
			row[j] = min(replace, last[j]+1, row[j-1]+1)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last, row = last, row, before
	}
	return last[len(b)]
}
