package requestid

import (
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
)

func TestRequestIDsAreUUIDs(t *testing.T) {
	begin := time.Date(2026, 3, 14, 9, 26, 53, 589_793_238, time.UTC)
	var all []string
	for i := range 1000 {
		at := begin.Add(time.Duration(i) * 300 * time.Nanosecond) // longer than the resolution of the fraction
		text := newRequestID(at)
		id, err := uuid.Parse(text)
		if err != nil || id.Version() != 7 || id.Variant() != uuid.RFC4122 || id.String() != text {
			t.Fatalf("%q is version %d, variant %v: %v", text, id.Version(), id.Variant(), err)
		}
		if seconds, nanoseconds := id.Time().UnixTime(); seconds != at.Unix() || nanoseconds/1e6 != int64(at.Nanosecond()/1e6) {
			t.Fatalf("%q is of %d.%09d, want %s", text, seconds, nanoseconds, at)
		}
		all = append(all, text)
	}
	if !slices.IsSorted(all) {
		t.Error("they are not in the order of time")
	}
	slices.Sort(all)
	if len(slices.Compact(all)) != 1000 {
		t.Error("two are the same")
	}
	if first, second := newRequestID(begin), newRequestID(begin); first == second {
		t.Error("two of the same moment are the same")
	}
	if late := newRequestID(time.Unix(1, 999_999_999)); !strings.HasPrefix(late, "00000000-07cf-7fff-") {
		t.Errorf("the last of a millisecond is %s", late)
	}
}

func TestValidRequestID(t *testing.T) {
	for id, want := range map[string]bool{
		"0195923e-1f2b-7c34-9a57-53a6a7f6b0c1": true, "a": true, "A.b_c-d:e+f/g=h@i": true, "Root=1-67891233-abcdef012345678912345678": true,
		strings.Repeat("x", 128): true, strings.Repeat("x", 129): false,
		"": false, " ": false, "a b": false, "a\tb": false, "a\nb": false, "a\x00": false, `a"b`: false, "a'b": false, "<a>": false,
		"a,b": false, "a;b": false, "{env.HOME}": false, "é": false, "\xff": false, "%0a": false, "$(id)": false, "a\\b": false,
	} {
		if validRequestID(id) != want {
			t.Errorf("%q: valid is %v", id, !want)
		}
	}
}

func TestTraceID(t *testing.T) {
	const trace = "0af7651916cd43dd8448eb211c80319c"
	for text, want := range map[string]string{
		"00-" + trace + "-b7ad6b7169203331-01":                    trace,
		"00-" + trace + "-b7ad6b7169203331-00":                    trace,
		"cc-" + trace + "-b7ad6b7169203331-01":                    trace,
		"cc-" + trace + "-b7ad6b7169203331-01-more":               trace,
		"cc-" + trace + "-b7ad6b7169203331-01more":                "",
		"00-" + trace + "-b7ad6b7169203331-01-more":               "",
		"ff-" + trace + "-b7ad6b7169203331-01":                    "",
		"00-" + strings.ToUpper(trace) + "-b7ad6b7169203331-01":   "",
		"00-00000000000000000000000000000000-b7ad6b7169203331-01": "",
		"00-" + trace + "-0000000000000000-01":                    "",
		"00-" + trace + "-b7ad6b7169203331-0":                     "",
		"00-" + trace + "-b7ad6b7169203331-0g":                    "",
		"00_" + trace + "-b7ad6b7169203331-01":                    "",
		"00-" + trace + "_b7ad6b7169203331-01":                    "",
		"00-" + trace + "-b7ad6b7169203331_01":                    "",
		"0x-" + trace + "-b7ad6b7169203331-01":                    "",
		" 00-" + trace + "-b7ad6b7169203331-01":                   "",
		"":                                                        "",
	} {
		if got := traceID(text); got != want {
			t.Errorf("%q: got %q, want %q", text, got, want)
		}
	}
}

func FuzzRequestID(f *testing.F) {
	f.Add("0195923e-1f2b-7c34-9a57-53a6a7f6b0c1", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
	f.Add("a\r\nSet-Cookie: b", "cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-x")
	plainID := regexp.MustCompile(`\A[A-Za-z0-9._:+/=@-]{1,128}\z`)
	plainTrace := regexp.MustCompile(`\A(?:00-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}|[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}(?:-(?s:.*))?)\z`)
	f.Fuzz(func(t *testing.T, id, traceparent string) {
		if got := validRequestID(id); got != plainID.MatchString(id) {
			t.Errorf("%q: valid is %v", id, got)
		}
		want := ""
		if m := plainTrace.FindStringSubmatch(traceparent); m != nil {
			want = m[1] + m[2]
			if traceparent[:2] == "ff" || strings.Trim(want, "0") == "" || strings.Trim(traceparent[36:52], "0") == "" ||
				traceparent[:2] == "00" && len(traceparent) != 55 {
				want = ""
			}
		}
		if got := traceID(traceparent); got != want {
			t.Errorf("%q: got %q, want %q", traceparent, got, want)
		}
	})
}
