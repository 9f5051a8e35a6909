package operations

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// roundTripper is a function that implements http.RoundTripper.
type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestRegisteredInstancesExpire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRegistry("test")
		defer r.Destruct()
		for _, name := range []string{"b", "a"} {
			if isNew, err := r.put("web", name, "10.0.0."+name+":80", "", 10*time.Second); !isNew || err != nil {
				t.Fatalf("new: %t, %v", isNew, err)
			}
		}
		if got := r.Dials("web"); !slices.Equal(got, []string{"10.0.0.a:80", "10.0.0.b:80"}) || r.Dials("other") != nil {
			t.Errorf("got %v", got)
		}
		time.Sleep(8 * time.Second)
		if !r.renew("web", "a") || r.renew("web", "c") {
			t.Error("a is known and c is not")
		}
		time.Sleep(4 * time.Second)
		if got := r.Dials("web"); !slices.Equal(got, []string{"10.0.0.a:80"}) {
			t.Errorf("after b has expired: %v", got)
		}
		if isNew, _ := r.put("web", "a", "10.0.0.9:80", "", 10*time.Second); isNew {
			t.Error("a is new")
		}
		if got := r.Dials("web"); !slices.Equal(got, []string{"10.0.0.9:80"}) {
			t.Errorf("after a has moved: %v", got)
		}
		if !r.remove("web", "a") || r.remove("web", "a") || len(r.Dials("web")) > 0 {
			t.Error("a cannot be removed once")
		}
	})
}

func TestRegisteredInstancesAreChecked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRegistry("test")
		defer r.Destruct()
		var status atomic.Int32
		r.client.Transport = roundTripper(func(request *http.Request) (*http.Response, error) {
			if request.URL.String() != "http://10.0.0.1/health" {
				t.Errorf("got a request for %s", request.URL)
			}
			if status.Load() == 0 {
				return nil, errors.New("refused")
			}
			return &http.Response{StatusCode: int(status.Load()), Body: http.NoBody}, nil
		})
		if _, err := r.put("web", "a", "10.0.0.1:80", "http://10.0.0.1/health", time.Hour); err != nil {
			t.Fatal(err)
		}
		for _, step := range []struct {
			status int32
			reason string
		}{{0, "health check failed: "}, {503, "with status 503"}, {200, ""}, {500, "with status 500"}, {204, ""}} {
			status.Store(step.status)
			time.Sleep(time.Duration(checkEvery+1) * registryTick)
			synctest.Wait()
			inst := r.list("web")[0]
			if routable := len(r.Dials("web")) == 1; routable != (step.reason == "") || !strings.Contains(inst.Reason, step.reason) || (inst.Status == healthy) != routable {
				t.Errorf("after %d: routable %t, %+v", step.status, routable, inst)
			}
		}
	})
}

func TestAddressesOfInstances(t *testing.T) {
	for text, want := range map[string]string{
		"http://10.0.0.7:8080": "10.0.0.7:8080", "http://web": "web:80", "http://[::1]:8080/": "[::1]:8080",
		"https://10.0.0.7": "", "10.0.0.7:80": "", "http://a/b": "", "http://u:p@a": "", "http://a?b": "", "": "", "ftp://a": "",
		"http://a:65535": "a:65535", "http://a:65536": "", "http://a:0": "", "http://a:": "a:80",
	} {
		if got, err := (Backend{}).dialAddress(text); got != want || (err == nil) != (want != "") {
			t.Errorf("%q: got %q, %v", text, got, err)
		}
	}
	if got, err := (Backend{Scheme: "https"}).dialAddress("https://a"); got != "a:443" || err != nil {
		t.Errorf("https: got %q, %v", got, err)
	}
	for text, ok := range map[string]bool{"": true, "http://10.0.0.7/health": true, "https://10.0.0.7:9000/": true, "http://169.254.169.254/": false, "file:///etc/passwd": false, "http://u@10.0.0.7/": false,
		"http://10.0.0.7:65536/": false, "http://10.0.0.7:0/": false, "http://10.0.0.7:/": true} {
		if err := checkHealthURL(text, "10.0.0.7:80"); (err == nil) != ok {
			t.Errorf("health check %q: %v", text, err)
		}
	}
}

func TestLogQueries(t *testing.T) {
	for query, wrong := range map[string]string{
		"": "", "status=404": "", "status=5xx": "", "status=5XX": "", "since=5m": "", "since=2026-12-31T12:00:00Z": "", "service=x": "",
		"status=5": "status", "status=99": "status", "status=xx": "status", "status=600": "status", "status=12xx": "status", "since=yesterday": "since",
		"follow=1": "", "follow=true": "", "follow=0": "", "follow=false": "", "follow=yes": "follow", "follow": "follow", "follow=T": "follow",
		"folow=1": `"folow" (did you mean "follow"?)`, "service=x&x": `"x"`,
	} {
		values, err := url.ParseQuery(query)
		if err != nil {
			t.Fatal(err)
		}
		_, follow, err := parseLogQuery(values)
		if (err != nil) != (wrong != "") || err != nil && !strings.Contains(err.Error(), wrong) {
			t.Errorf("%s: %v", query, err)
		}
		if want := query == "follow=1" || query == "follow=true"; follow != want {
			t.Errorf("%s: following is %v", query, follow)
		}
	}
}

func TestLifetimesInJSON(t *testing.T) {
	for text, want := range map[string]time.Duration{
		`300`: 5 * time.Minute, `0.5`: 500 * time.Millisecond, `"300s"`: 5 * time.Minute, `0`: 0, `null`: 0, `-1`: -time.Second,
		`1e300`: failing, `"300"`: failing, `true`: failing, `{}`: failing,
	} {
		var got lifetime
		if err := json.Unmarshal([]byte(text), &got); (err != nil) != (want == failing) || err == nil && time.Duration(got) != want {
			t.Errorf("%s: got %v, %v", text, time.Duration(got), err)
		}
	}
}

const failing = time.Duration(-1)
