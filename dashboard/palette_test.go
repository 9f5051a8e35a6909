package dashboard

import (
	"fmt"
	"math"
	"regexp"
	"strings"
	"testing"
)

type colour [3]float64 // linear red, green and blue, 0 to 1

// paletteOf returns the color variables of a scheme in the style sheet.
func paletteOf(t *testing.T, scheme string) map[string]colour {
	t.Helper()
	light, dark, ok := strings.Cut(style, "@media (prefers-color-scheme: dark)")
	if !ok {
		t.Fatal("the style sheet has no dark scheme")
	}
	text := map[string]string{"light": light, "dark": dark}[scheme]
	palette := make(map[string]colour)
	for _, m := range regexp.MustCompile(`--([\w-]+): #([0-9a-f]{6});`).FindAllStringSubmatch(text, -1) {
		var c [3]int
		if _, err := fmt.Sscanf(m[2], "%02x%02x%02x", &c[0], &c[1], &c[2]); err != nil {
			t.Fatal(err)
		}
		var linear colour
		for i, v := range c {
			if s := float64(v) / 255; s <= 0.04045 {
				linear[i] = s / 12.92
			} else {
				linear[i] = math.Pow((s+0.055)/1.055, 2.4)
			}
		}
		palette[m[1]] = linear
	}
	return palette
}

// contrast returns the contrast ratio (WCAG 2.2, section 1.4.3).
func contrast(a, b colour) float64 {
	luminance := func(c colour) float64 { return 0.2126*c[0] + 0.7152*c[1] + 0.0722*c[2] }
	x, y := luminance(a)+0.05, luminance(b)+0.05
	return max(x/y, y/x)
}

// asSeenWith holds matrices that simulate dichromacy in linear RGB: Viénot, Brettel and
// Mollon (1999), and for tritanopia Brettel, Viénot and Mollon (1997).
var asSeenWith = map[string][3]colour{
	"all cones":      {{1, 0, 0}, {0, 1, 0}, {0, 0, 1}},
	"no red cones":   {{0.11238, 0.88762, 0}, {0.11238, 0.88762, -0}, {0.00401, -0.00401, 1}},
	"no green cones": {{0.29275, 0.70725, 0}, {0.29275, 0.70725, -0}, {-0.02234, 0.02234, 1}},
	"no blue cones":  {{1, 0.15236, -0.15236}, {0, 0.86717, 0.13283}, {0, 0.86717, 0.13283}},
}

// lab converts a color to Oklab, a perceptually uniform color space.
func lab(c colour, seen [3]colour) [3]float64 {
	var rgb colour
	for i, row := range seen {
		rgb[i] = min(max(row[0]*c[0]+row[1]*c[1]+row[2]*c[2], 0), 1)
	}
	// Oklab: Ottosson (2020).
	l := math.Cbrt(0.4122214708*rgb[0] + 0.5363325363*rgb[1] + 0.0514459929*rgb[2])
	m := math.Cbrt(0.2119034982*rgb[0] + 0.6806995451*rgb[1] + 0.1073969566*rgb[2])
	s := math.Cbrt(0.0883024619*rgb[0] + 0.2817188376*rgb[1] + 0.6299787005*rgb[2])
	return [3]float64{
		0.2104542553*l + 0.7936177850*m - 0.0040720468*s,
		1.9779984951*l - 2.4285922050*m + 0.4505937099*s,
		0.0259040371*l + 0.7827717662*m - 0.8086757660*s,
	}
}

// Text and shapes have enough contrast to the background, and the colors of a picture
// are distinguishable with color blindness.
func TestColours(t *testing.T) {
	for _, scheme := range []string{"light", "dark"} {
		palette := paletteOf(t, scheme)
		for name, least := range map[string]float64{
			"text": 7, "soft": 4.5, "link": 4.5, "good": 4.5, "warn": 4.5, "bad": 4.5, "none": 4.5, "focus": 3,
			"c1": 3, "c2": 3, "c3": 3, "c4": 3, "c5": 3, "c6": 3, "c0": 3, "bad-fill": 3, "good-fill": 3, "warn-fill": 3,
		} {
			for _, behind := range []string{"card", "page"} {
				if behind == "page" && least == 3 && name != "focus" {
					continue // only used on cards
				}
				if got := contrast(palette[name], palette[behind]); got < least {
					t.Errorf("%s: the contrast of %s on %s is %.2f, want %g", scheme, name, behind, got, least)
				}
			}
		}
		for cones, seen := range asSeenWith {
			for i, a := range classes {
				for _, b := range classes[i+1:] {
					x, y := lab(palette[a], seen), lab(palette[b], seen)
					if d := math.Hypot(math.Hypot(x[0]-y[0], x[1]-y[1]), x[2]-y[2]); d < 0.08 {
						t.Errorf("%s: with %s, %s and %s are only %.3f apart", scheme, cones, a, b, d)
					}
				}
			}
		}
	}
}
