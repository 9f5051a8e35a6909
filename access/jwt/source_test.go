package jwt

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
)

// jwtDocument is a fake document that a key source reads.
type jwtDocument struct {
	mu    sync.Mutex
	text  string
	err   error
	takes time.Duration
	fresh time.Duration
	reads int
}

func (d *jwtDocument) set(text string, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.text, d.err = text, err
}

func (d *jwtDocument) count() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.reads
}

func (d *jwtDocument) load(ctx context.Context) (document, error) {
	d.mu.Lock()
	d.reads++
	takes := d.takes
	d.mu.Unlock()
	select {
	case <-time.After(takes):
	case <-ctx.Done():
		return document{}, ctx.Err()
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.text == "panic" {
		panic("reading")
	}
	return document{[]byte(d.text), d.fresh}, d.err
}

// jwtSource runs a test of a key source in a bubble with a fake clock.
func jwtSource(t *testing.T, d *jwtDocument, test func(t *testing.T, s *keySource)) {
	set := jwtSet(t, jwtJWK(t, jwtEC().Public(), map[string]any{"kid": "1"}))
	synctest.Test(t, func(t *testing.T) {
		if d.text == "" && d.err == nil {
			d.text = set
		}
		if d.fresh == 0 {
			d.fresh = 10 * time.Minute
		}
		s := &keySource{name: "test", load: d.load, parse: parseJWKS, log: zap.NewNop}
		s.start()
		test(t, s)
		if err := s.Destruct(); err != nil {
			t.Error(err)
		}
	})
}

func TestSourceReadsAgainInTime(t *testing.T) {
	d := new(jwtDocument)
	jwtSource(t, d, func(t *testing.T, s *keySource) {
		synctest.Wait()
		first := s.current()
		if first == nil {
			t.Fatal("there are no keys")
		}
		time.Sleep(24 * time.Hour)
		if n := d.count(); n < 144 || n > 162 { // every 9 to 10 minutes
			t.Errorf("read %d times in a day", n)
		}
		if s.current() != first {
			t.Error("the keys were replaced by the same")
		}
		d.set(jwtSet(t, jwtJWK(t, jwtEC384().Public(), nil)), nil)
		time.Sleep(10 * time.Minute)
		if s.current() == first {
			t.Error("new keys are not seen")
		}
	})
}

func TestSourceKeepsLastKeys(t *testing.T) {
	d := new(jwtDocument)
	jwtSource(t, d, func(t *testing.T, s *keySource) {
		synctest.Wait()
		first := s.current()
		for _, text := range []string{"", "<html>", `{"keys": []}`, `{"keys": [{"kty": "oct", "k": "AAAA"}]}`} {
			d.set(text, nil)
			time.Sleep(time.Hour)
			if s.current() != first {
				t.Errorf("after %q, the keys are gone", text)
			}
		}
		d.set("", errors.New("down"))
		before := d.count()
		time.Sleep(24 * time.Hour)
		if n := d.count() - before; n < 2880 || n > 3200 { // every 27 to 30 seconds
			t.Errorf("tried %d times in a day", n)
		}
		if s.current() != first {
			t.Error("the keys are gone")
		}
		d.set(jwtSet(t, jwtJWK(t, jwtEC384().Public(), nil)), nil)
		time.Sleep(maxBackoff)
		if s.current() == first {
			t.Error("it is not read again")
		}
	})
}

func TestSourceComesBack(t *testing.T) {
	d := &jwtDocument{err: errors.New("down")}
	jwtSource(t, d, func(t *testing.T, s *keySource) {
		if s.newer(t.Context(), nil) != nil || d.count() != 1 {
			t.Error("there are keys")
		}
		begun := time.Now()
		for range 100 {
			s.newer(t.Context(), nil)
		}
		if waited := time.Since(begun); waited != 0 {
			t.Errorf("requests waited %s in vain", waited)
		}
		time.Sleep(time.Hour)
		d.set(jwtSet(t, jwtJWK(t, jwtEC().Public(), nil)), nil)
		time.Sleep(minFirstAttempt)
		if s.newer(t.Context(), nil) == nil {
			t.Error("a request does not lead to the keys")
		}
	})
}

func TestSourceReadsForUnknownKeys(t *testing.T) {
	d := &jwtDocument{takes: 100 * time.Millisecond}
	jwtSource(t, d, func(t *testing.T, s *keySource) {
		first := s.newer(t.Context(), nil) // waits for the first read
		if first == nil {
			t.Fatal("there are no keys")
		}
		time.Sleep(time.Minute)
		d.set(jwtSet(t, jwtJWK(t, jwtEC384().Public(), nil)), nil)
		var asking sync.WaitGroup
		var wrong atomic.Int32
		for range maxQueuedRefreshes {
			asking.Go(func() {
				if s.newer(t.Context(), first) == first {
					wrong.Add(1)
				}
			})
		}
		asking.Wait()
		if wrong.Load() > 0 || d.count() != 2 {
			t.Errorf("%d requests got old keys, and the document was read %d times", wrong.Load(), d.count())
		}

		// Unknown key IDs do not trigger a read for each token.
		second := s.current()
		for begun := time.Now(); time.Since(begun) < time.Minute; time.Sleep(10 * time.Millisecond) {
			s.newer(t.Context(), second)
		}
		if n := d.count() - 2; n < 10 || n > 12 {
			t.Errorf("in a minute, the document was read %d times", n)
		}
	})
}

func TestSourceIsSlow(t *testing.T) {
	d := &jwtDocument{takes: time.Hour}
	jwtSource(t, d, func(t *testing.T, s *keySource) {
		begun := time.Now()
		var asking sync.WaitGroup
		var waited atomic.Int32
		for range 2 * maxQueuedRefreshes {
			asking.Go(func() {
				if s.newer(t.Context(), nil) != nil {
					t.Error("there are keys")
				}
				if time.Since(begun) == keyPatience {
					waited.Add(1)
				}
			})
		}
		asking.Wait()
		if n := waited.Load(); n != maxQueuedRefreshes {
			t.Errorf("%d requests waited for the keys", n)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		begun = time.Now()
		if s.newer(ctx, nil); time.Since(begun) != 0 {
			t.Error("a request whose client has left waits")
		}
		time.Sleep(loadTimeout) // the read times out
		synctest.Wait()
		if d.count() != 2 {
			t.Errorf("it was read %d times", d.count())
		}
	})
}

func TestSourceSurvivesPanics(t *testing.T) {
	d := new(jwtDocument)
	jwtSource(t, d, func(t *testing.T, s *keySource) {
		synctest.Wait()
		first := s.current()
		d.set("panic", nil)
		time.Sleep(time.Hour)
		if s.current() != first || d.count() < 100 {
			t.Error("it does not go on")
		}
	})
}

func TestFreshness(t *testing.T) {
	for _, tc := range []struct {
		control []string
		age     string
		want    time.Duration
	}{
		{nil, "", defaultFresh},
		{[]string{"public"}, "100", defaultFresh},
		{[]string{"max-age=600"}, "", 10 * time.Minute},
		{[]string{"public, Max-Age=600, must-revalidate"}, "", 10 * time.Minute},
		{[]string{"public", `max-age="600"`}, "", 10 * time.Minute},
		{[]string{"max-age=600, max-age=1200"}, "", 10 * time.Minute},
		{[]string{"max-age=600"}, "240", 6 * time.Minute},
		{[]string{"max-age=600"}, "x", 10 * time.Minute},
		{[]string{"max-age=600"}, "9999", minFresh},
		{[]string{"max-age=1"}, "", minFresh},
		{[]string{"max-age=0"}, "", minFresh},
		{[]string{"no-cache, max-age=600"}, "", minFresh},
		{[]string{"max-age=600, no-store"}, "", minFresh},
		{[]string{"max-age=31536000"}, "", maxFresh},
		{[]string{"max-age=99999999999999999999"}, "", defaultFresh},
		{[]string{"max-age=-1", "max-age="}, "", defaultFresh},
	} {
		header := http.Header{"Cache-Control": tc.control}
		if tc.age != "" {
			header.Set("Age", tc.age)
		}
		if got := freshFor(header); got != tc.want {
			t.Errorf("%q, age %q: %s, want %s", tc.control, tc.age, got, tc.want)
		}
	}
}

// jwtWeb is an HTTP transport that responds without a network.
type jwtWeb map[string]string

func (web jwtWeb) RoundTrip(r *http.Request) (*http.Response, error) {
	body, ok := web[r.URL.String()]
	response := &http.Response{StatusCode: http.StatusOK, Header: http.Header{"Cache-Control": {"max-age=300"}}, Body: io.NopCloser(strings.NewReader(body)), Request: r}
	if location, moved := strings.CutPrefix(body, "-> "); moved {
		response.StatusCode = http.StatusFound
		response.Header.Set("Location", location)
	}
	if !ok {
		response.StatusCode = http.StatusNotFound
	}
	return response, nil
}

func TestDiscovery(t *testing.T) {
	const id, configuration = "https://id.example", "https://id.example/.well-known/openid-configuration"
	const keys = `{"keys":[]}`
	for name, tc := range map[string]struct {
		issuer, fails string
		web           jwtWeb
	}{
		"found":               {id, "", jwtWeb{configuration: `{"issuer":"https://id.example","jwks_uri":"https://keys.example/1"}`, "https://keys.example/1": keys}},
		"with a slash":        {id + "/", "", jwtWeb{configuration: `{"issuer":"https://id.example/","jwks_uri":"https://keys.example/1"}`, "https://keys.example/1": keys}},
		"with a path":         {id + "/t", "", jwtWeb{id + "/t/.well-known/openid-configuration": `{"issuer":"https://id.example/t","jwks_uri":"https://keys.example/1"}`, "https://keys.example/1": keys}},
		"moved":               {id, "", jwtWeb{configuration: `{"issuer":"https://id.example","jwks_uri":"https://keys.example/1"}`, "https://keys.example/1": "-> /2", "https://keys.example/2": keys}},
		"without encryption":  {"http://id:8080", "", jwtWeb{"http://id:8080/.well-known/openid-configuration": `{"issuer":"http://id:8080","jwks_uri":"http://id:8080/keys"}`, "http://id:8080/keys": keys}},
		"another issuer":      {id, `has issuer "https://id.example/"`, jwtWeb{configuration: `{"issuer":"https://id.example/","jwks_uri":"https://keys.example/1"}`, "https://keys.example/1": keys}},
		"nothing":             {id, "status 404", jwtWeb{}},
		"no JSON":             {id, "reading https://id.example", jwtWeb{configuration: "<html>"}},
		"no keys":             {id, `"": must be a URL`, jwtWeb{configuration: `{"issuer":"https://id.example"}`}},
		"a file":              {id, "must be a URL", jwtWeb{configuration: `{"issuer":"https://id.example","jwks_uri":"file:///etc/passwd"}`}},
		"keys in the clear":   {id, "must be an https URL", jwtWeb{configuration: `{"issuer":"https://id.example","jwks_uri":"http://keys.example/1"}`}},
		"keys gone":           {id, "status 404", jwtWeb{configuration: `{"issuer":"https://id.example","jwks_uri":"https://keys.example/1"}`}},
		"moved to the clear":  {id, "redirect from https to http", jwtWeb{configuration: `{"issuer":"https://id.example","jwks_uri":"https://keys.example/1"}`, "https://keys.example/1": "-> http://keys.example/1"}},
		"moved in a circle":   {id, "too many redirects", jwtWeb{configuration: "-> " + configuration}},
		"more than is wanted": {id, "larger than", jwtWeb{configuration: strings.Repeat(" ", maxDocument+1)}},
	} {
		f, err := newFetcher("")
		if err != nil {
			t.Fatal(err)
		}
		f.client.Transport = tc.web
		got, err := f.discover(t.Context(), tc.issuer)
		switch {
		case tc.fails == "" && (err != nil || string(got.text) != keys || got.fresh != 5*time.Minute):
			t.Errorf("%s: got %q, %s, %v", name, got.text, got.fresh, err)
		case tc.fails != "" && (err == nil || !strings.Contains(err.Error(), tc.fails)):
			t.Errorf("%s: got %v, want %q", name, err, tc.fails)
		}
	}
}
