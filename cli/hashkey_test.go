package cli

import (
	"bytes"
	"encoding/base64"
	"regexp"
	"strings"
	"testing"
)

func TestReadKey(t *testing.T) {
	for _, tc := range []struct{ text, key, wrong string }{
		{text: "abc", key: "abc"},
		{text: "abc\n", key: "abc"},
		{text: "abc\r\n", key: "abc"},
		{text: "a+/=~!\"'", key: "a+/=~!\"'"},
		{text: strings.Repeat("a", maxKeyLength), key: strings.Repeat("a", maxKeyLength)},
		{text: strings.Repeat("a", maxKeyLength) + "\r\n", key: strings.Repeat("a", maxKeyLength)},
		{text: "", wrong: "key is required"},
		{text: "\n", wrong: "key is required"},
		{text: "abc\n\n", wrong: "line break"},
		{text: " abc", wrong: "space"},
		{text: "abc\ndef\n", wrong: "must not contain"},
		{text: "schlüssel", wrong: "non-ASCII"},
		{text: strings.Repeat("a", maxKeyLength+1), wrong: "at most 4096 bytes"},
		{text: strings.Repeat("a", 3*maxKeyLength), wrong: "at most 4096 bytes"},
	} {
		key, err := readKey(strings.NewReader(tc.text))
		if tc.wrong == "" && (err != nil || key != tc.key) {
			t.Errorf("%.20q: got %.20q and %v, want %.20q", tc.text, key, err, tc.key)
		}
		if tc.wrong != "" && (err == nil || !strings.Contains(err.Error(), tc.wrong)) {
			t.Errorf("%.20q: got the error %v, want one with %q", tc.text, err, tc.wrong)
		}
		if err != nil && tc.text != "" && strings.Contains(err.Error(), "abc") {
			t.Errorf("%.20q: the error shows the key: %v", tc.text, err)
		}
	}
}

func TestPrintHash(t *testing.T) {
	var out, notes bytes.Buffer
	if err := printHash(&out, &notes, "abc"); err != nil {
		t.Fatal(err)
	}
	// The first example of FIPS 180-2, appendix B.
	if want := "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad\n"; out.String() != want {
		t.Errorf("got %q, want %q", &out, want)
	}
	if !strings.Contains(notes.String(), "3 characters") || !strings.Contains(notes.String(), "--generate") {
		t.Errorf("of a short key it says %q", &notes)
	}
	notes.Reset()
	if err := printHash(&out, &notes, strings.Repeat("a", shortestToKeep)); err != nil || notes.Len() > 0 {
		t.Errorf("of a long key it says %q and %v", &notes, err)
	}
}

func TestPrintNewKey(t *testing.T) {
	printed := regexp.MustCompile(`^key:    (\S+)\nsha256: ([0-9a-f]{64})\n\n.*\n\n- \{name: CONSUMER, sha256: ([0-9a-f]{64})\}\n$`)
	seen := make(map[string]bool)
	for range 10 {
		var out bytes.Buffer
		if err := printNewKey(&out); err != nil {
			t.Fatal(err)
		}
		found := printed.FindStringSubmatch(out.String())
		if found == nil {
			t.Fatalf("it prints %q", &out)
		}
		random, err := base64.RawURLEncoding.DecodeString(found[1])
		if err != nil || len(random) != 32 || seen[found[1]] {
			t.Errorf("the key %q is not 256 new bits: %v", found[1], err)
		}
		seen[found[1]] = true
		if key, err := readKey(strings.NewReader(found[1])); err != nil || hashOf(key) != found[2] || found[2] != found[3] {
			t.Errorf("the hashes of %q are %q and %q", found[1], found[2], found[3])
		}
	}
}
