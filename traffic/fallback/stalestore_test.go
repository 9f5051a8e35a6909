package fallback

import (
	"net/http"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/rgate/rgate/policy"
)

func TestFallbackWhatIsKept(t *testing.T) {
	const kept, gone = "200 first by cached", "error 503"
	for _, tc := range []struct {
		what     string
		response caddyhttp.HandlerFunc
		request  []string
		want     string
	}{
		{"plain", fallbackSays("first"), nil, kept},
		{"with a lifetime", fallbackSays("first", "Cache-Control", "max-age=1"), nil, kept},
		{"private", fallbackSays("first", "Cache-Control", "private"), nil, gone},
		{"no-store", fallbackSays("first", "Cache-Control", "No-Store, max-age=5"), nil, gone},
		{"no-cache", fallbackSays("first", "Cache-Control", "no-cache"), nil, gone},
		{"cookie", fallbackSays("first", "Set-Cookie", "a=b"), nil, gone},
		{"vary by all", fallbackSays("first", "Vary", "*"), nil, gone},
		{"not found", fallbackSays("first", 404), nil, gone},
		{"partial", fallbackSays("first", 206), nil, gone},
		{"events", fallbackSays("first", "Content-Type", "text/event-stream"), nil, gone},
		{"too large", fallbackSays(strings.Repeat("x", 2000)), nil, gone},
		{"too large, length known", fallbackSays(strings.Repeat("x", 2000), "Content-Length", "2000"), nil, gone},
		{"shorter than it should be", fallbackSays("first", "Content-Length", "6"), nil, gone},
		{"as long as it should be", fallbackSays("first", "Content-Length", "5"), nil, kept},
		{"must be fresh and is", fallbackSays("first", "Cache-Control", "max-age=60, must-revalidate"), nil, kept},
		{"must be fresh and is not", fallbackSays("first", "Cache-Control", "max-age=0, must-revalidate"), nil, gone},
		{"shared caches must have it fresh", fallbackSays("first", "Cache-Control", "s-maxage=5, max-age=60", "Age", "5"), nil, gone},
		{"credentials", fallbackSays("first"), []string{"Authorization", "a"}, gone},
		{"credentials, public", fallbackSays("first", "Cache-Control", "public"), []string{"Authorization", "a"}, kept},
		{"cookies", fallbackSays("first"), []string{"Cookie", "a=b"}, gone},
		{"cookies, public", fallbackSays("first", "Cache-Control", "public"), []string{"Cookie", "a=b"}, kept},
		{"the gateway knows the user", fallbackSays("first"), []string{"X-User-Id", "alice"}, gone},
		{"an API key", fallbackSays("first"), []string{"X-Api-Key", "1"}, gone},
		{"a browser", fallbackSays("first"), []string{"Sec-Fetch-User", "?1", "User-Agent", "x"}, kept},
		{"an error after it began", func(w http.ResponseWriter, r *http.Request) error {
			_ = fallbackSays("first")(w, r)
			return errFallbackDown
		}, nil, gone},
	} {
		t.Run(tc.what, func(t *testing.T) {
			rig := newFallbackRig(t, &Fallback{Cached: caddy.Duration(time.Minute), MaxBody: 1000})
			rig.backend = tc.response
			rig.ask(t, "GET", "/", "", tc.request...)
			rig.backend = fallbackDown
			rig.expect(t, tc.want, "GET", "/", "", tc.request...)
		})
	}
}

func TestFallbackKeptByRequest(t *testing.T) {
	rig := newFallbackRig(t, &Fallback{Cached: caddy.Duration(time.Minute)})
	rig.backend = func(w http.ResponseWriter, r *http.Request) error {
		w.Header().Set("Vary", "Accept-Language")
		return fallbackSays("in "+r.Header.Get("Accept-Language"))(w, r)
	}
	for _, language := range []string{"de", "en"} {
		rig.expect(t, "200 in "+language, "GET", "/a?b=c", "", "Accept-Language", language)
	}
	rig.backend = fallbackDown
	for _, language := range []string{"de", "en"} {
		rig.expect(t, "200 in "+language+" by cached", "GET", "/a?b=c", "", "Accept-Language", language)
	}
	rig.expect(t, "error 503", "GET", "/a?b=c", "", "Accept-Language", "fr")
	rig.expect(t, "error 503", "GET", "/a?b=d", "", "Accept-Language", "de")
	rig.expect(t, "error 503", "GET", "/A?b=c", "", "Accept-Language", "de")
	rig.expect(t, "error 503", "POST", "/a?b=c", "", "Accept-Language", "de")
	header := rig.expect(t, "200  by cached", "HEAD", "/a?b=c", "", "Accept-Language", "de")
	if header.Get("Content-Length") != "5" {
		t.Errorf("the length is %q", header.Get("Content-Length"))
	}
	rig.state.place.Backend = "second"
	rig.expect(t, "error 503", "GET", "/a?b=c", "", "Accept-Language", "de")
	rig.state.place.Backend = "first"

	// Successful changes remove earlier responses. Failed changes do not.
	rig.backend = fallbackSays("no", 409)
	rig.expect(t, "409 no", "PUT", "/a?b=c", "")
	rig.backend = fallbackDown
	rig.expect(t, "200 in de by cached", "GET", "/a?b=c", "", "Accept-Language", "de")
	rig.backend = fallbackSays("done", 201)
	rig.expect(t, "201 done", "PUT", "/a?b=c", "")
	rig.backend = fallbackDown
	rig.expect(t, "error 503", "GET", "/a?b=c", "", "Accept-Language", "de")
}

func TestFallbackKeptResponsesGrowOld(t *testing.T) {
	rig := newFallbackRig(t, &Fallback{Cached: caddy.Duration(time.Minute), Statuses: []string{"5xx"}})
	synctest.Test(t, func(t *testing.T) {
		rig.backend = fallbackSays("one", "Age", "7", "X-A", "b", "Cache-Control", "max-age=10")
		rig.expect(t, "200 one", "GET", "/", "")
		rig.backend = fallbackSays("two")
		rig.expect(t, "200 two", "GET", "/", "") // not stored: less than renewAfter later
		time.Sleep(30 * time.Second)
		for _, tc := range []struct {
			backend caddyhttp.HandlerFunc
			detail  string
		}{{fallbackDown, ""}, {fallbackSays("oops", 500), "; fwd-status=500"}} {
			rig.backend = tc.backend
			header := rig.expect(t, "200 one by cached", "GET", "/", "")
			if header.Get("Age") != "37" || header.Get("Cache-Status") != "rgate-fallback; fwd=stale"+tc.detail ||
				header.Get("X-A") != "b" || header.Get("Content-Type") != "text/x" || header.Get("Warning") != "" {
				t.Errorf("the header is %v", header)
			}
		}
		time.Sleep(30 * time.Second)
		rig.expect(t, "500 oops", "GET", "/", "")
		rig.backend = fallbackSays("three")
		rig.expect(t, "200 three", "GET", "/", "")
		rig.backend = fallbackDown
		rig.expect(t, "200 three by cached", "GET", "/", "")
	})
}

func TestFallbackKeptResponsesAreBounded(t *testing.T) {
	const most = 1 << 20
	rig := newFallbackRig(t, &Fallback{Cached: caddy.Duration(time.Hour), MaxBytes: most, MaxBody: 64 << 10})
	body := strings.Repeat("x", 10<<10)
	for i := range 1000 {
		rig.backend = fallbackSays(body, "Vary", "Accept-Language")
		rig.ask(t, "GET", "/"+strconv.Itoa(i/2), "", "Accept-Language", strconv.Itoa(i%2))
	}
	store, _ := rig.stores.Get(fallbackPlace{rig.state.place.Gateway, "first", rig.position.String()})
	var sum int64
	count := 0
	for _, variants := range store.byKey {
		for _, element := range variants {
			sum += element.Value.(*staleResponse).size()
			count++
		}
	}
	if sum != store.bytes || sum > most || count != store.order.Len() || count < most/(12<<10) {
		t.Errorf("%d responses take %d bytes, %d of them counted", count, sum, store.bytes)
	}
	for i := range 100 { // the number of variants of a URL is limited
		rig.ask(t, "GET", "/", "", "Accept-Language", strconv.Itoa(i))
	}
	for key, variants := range store.byKey {
		if len(variants) > maxVariants {
			t.Errorf("%q has %d variants", key, len(variants))
		}
	}
}

func TestFallbackOutlivesReloads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		load := func() (*fallbackRig, func()) {
			f := &Fallback{Cached: caddy.Duration(time.Hour)}
			base, _ := caddy.ProvisionContext(new(caddy.Config))
			ctx, cancel := caddy.NewContext(base)
			if err := f.Provision(ctx); err != nil {
				t.Fatal(err)
			}
			rig := &fallbackRig{Fallback: f, backend: fallbackSays("first"), state: &fallbackExchange{place: policy.RouteInfo{Gateway: t.Name(), Backend: "first"}}}
			return rig, func() {
				cancel()
				if err := f.Cleanup(); err != nil {
					t.Error(err)
				}
			}
		}
		old, endOld := load()
		old.expect(t, "200 first", "GET", "/", "")
		next, endNext := load()
		endOld() // before the new policy handles a request
		next.backend = fallbackDown
		next.expect(t, "200 first by cached", "GET", "/", "")
		time.Sleep(2 * unusedFor)
		next.expect(t, "200 first by cached", "GET", "/", "")
		endNext()
		time.Sleep(2 * unusedFor)
		if n, ok := staleStores.References(fallbackPlace{t.Name(), "first", next.position.String()}); ok {
			t.Errorf("%d still refer to it", n)
		}
	})
}

// Conditional and range requests are supported for stored responses.
func TestFallbackKeptConditionsAndParts(t *testing.T) {
	const date, later = "Wed, 21 Oct 2015 07:28:00 GMT", "Wed, 21 Oct 2015 07:28:01 GMT"
	response := []any{"Etag", `"1"`, "Content-Type", "text/x", "Content-Language", "en", "Cache-Control", "max-age=1", "Vary", "Accept"}
	modified := append(response[:len(response):len(response)], "Last-Modified", date)
	const whole, same = "200 0123456789 by cached", "304  by cached"
	for _, tc := range []struct {
		what     string
		response []any
		method   string
		request  []string
		want     string
		header   map[string]string // header fields of the response
	}{
		{"neither", response, "GET", nil, whole, map[string]string{"Content-Length": "10", "Etag": `"1"`}},
		{"the same tag", response, "GET", []string{"If-None-Match", `"0", W/"1"`}, same, map[string]string{
			"Etag": `"1"`, "Content-Type": "", "Content-Length": "", "Content-Language": "", "Cache-Control": "max-age=1", "Vary": "Accept"}},
		{"the same tag, by HEAD", response, "HEAD", []string{"If-None-Match", `"1"`}, same, nil},
		{"another tag", response, "GET", []string{"If-None-Match", `"2"`}, whole, nil},
		{"not modified", modified, "GET", []string{"If-Modified-Since", date}, same, nil},
		{"modified", modified, "GET", []string{"If-Modified-Since", "Wed, 21 Oct 2015 07:27:59 GMT"}, whole, nil},
		{"the tag says more than the time", modified, "GET", []string{"If-None-Match", `"2"`, "If-Modified-Since", later}, whole, nil},
		{"dated", append(response[:len(response):len(response)], "Date", date), "GET", []string{"If-Modified-Since", later}, same, nil},
		{"not 200", append(response[:len(response):len(response)], 203), "GET", []string{"If-None-Match", `"1"`}, "203 0123456789 by cached", nil},
		{"a part", response, "GET", []string{"Range", "bytes=2-4"}, "206 234 by cached", map[string]string{
			"Content-Range": "bytes 2-4/10", "Content-Length": "3", "Content-Type": "text/x"}},
		{"the end", response, "GET", []string{"Range", "bytes=-2"}, "206 89 by cached", nil},
		{"a part of what is new", response, "GET", []string{"Range", "bytes=2-4", "If-None-Match", `"2"`}, "206 234 by cached", nil},
		{"a part of what is there", response, "GET", []string{"Range", "bytes=2-4", "If-None-Match", `"1"`}, same, nil},
		{"a part of the same", response, "GET", []string{"Range", "bytes=2-4", "If-Range", `"1"`}, "206 234 by cached", nil},
		{"a part of another", response, "GET", []string{"Range", "bytes=2-4", "If-Range", `"2"`}, whole, nil},
		{"beyond the end", response, "GET", []string{"Range", "bytes=10-"}, "416 invalid range: failed to overlap by cached", map[string]string{"Content-Range": "bytes */10"}},
		{"another unit", response, "GET", []string{"Range", "lines=1-2"}, whole, nil},
		{"no part of a HEAD", response, "HEAD", []string{"Range", "bytes=2-4"}, "200  by cached", map[string]string{"Content-Length": "10"}},
	} {
		t.Run(tc.what, func(t *testing.T) {
			rig := newFallbackRig(t, &Fallback{Cached: caddy.Duration(time.Hour)})
			rig.backend = fallbackSays("0123456789", tc.response...)
			rig.ask(t, "GET", "/", "")
			rig.backend = fallbackDown
			header := rig.expect(t, tc.want, tc.method, "/", "", tc.request...)
			if header.Get("Age") == "" || !strings.Contains(header.Get("Cache-Status"), "fwd=stale") {
				t.Errorf("it does not say that it is old: %v", header)
			}
			for name, want := range tc.header {
				if got := header.Get(name); got != want {
					t.Errorf("%s is %q, want %q", name, got, want)
				}
			}
		})
	}
}
