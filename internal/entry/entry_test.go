package entry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

func init() {
	caddy.RegisterModule(new(mounter))
}

// mounter is a handler that mounts the entry. It sets a field of the request or
// responds.
type mounter struct {
	Off     bool   `json:"off,omitempty"`
	Prepare string `json:"prepare,omitempty"`
	Respond string `json:"respond,omitempty"`
	Fail    int    `json:"fail,omitempty"`
}

func (*mounter) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers.entry_test", New: func() caddy.Module { return new(mounter) }}
}

func (m *mounter) Provision(ctx caddy.Context) error {
	if !m.Off {
		Mount(ctx)
	}
	if m.Prepare != "" {
		Prepare(ctx, m.Prepare, PrepareFunc(func(r *http.Request) { r.Header.Add("Prepared", m.Prepare) }))
	}
	return nil
}

func (m *mounter) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	switch {
	case m.Fail != 0:
		return caddyhttp.Error(m.Fail, errors.New("failed"))
	case m.Respond != "":
		if w == nil {
			return nil
		}
		_, err := fmt.Fprint(w, m.Respond, r.Header["Prepared"])
		return err
	}
	return next.ServeHTTP(w, r)
}

// provisioned returns a server with routes and other options in JSON form.
func provisioned(t testing.TB, routes, more string) *caddyhttp.Server {
	t.Helper()
	config := `{"admin": {"disabled": true}, "logging": {"logs": {"default": {"level": "ERROR"}}}, "apps": {"http": {"servers": {"s": {"listen": [":0"],
		"automatic_https": {"disable": true}, "routes": ` + routes + more + `}}}}}`
	var parsed caddy.Config
	if err := caddy.StrictUnmarshalJSON([]byte(config), &parsed); err != nil {
		t.Fatal(err)
	}
	ctx, err := caddy.ProvisionContext(&parsed)
	if err != nil {
		t.Fatal(err)
	}
	app, err := ctx.App("http")
	if err != nil {
		t.Fatal(err)
	}
	return app.(*caddyhttp.App).Servers["s"]
}

func get(server *caddyhttp.Server, host string) string {
	w := httptest.NewRecorder()
	r := httptest.NewRequest(http.MethodGet, "http://"+host+"/", nil)
	server.ServeHTTP(w, r)
	return fmt.Sprint(w.Code, " ", w.Body)
}

func TestEntryLeavesRoutesAsTheyAre(t *testing.T) {
	tests := map[string]struct{ routes, more, want string }{
		"the first of a group": {
			`[{"group": "g", "handle": [{"handler": "entry_test"}]}, {"group": "g", "handle": [{"handler": "entry_test", "respond": "second"}]}, {"handle": [{"handler": "entry_test", "respond": "third"}]}]`,
			"", "200 third[]",
		},
		"a terminal route": {
			`[{"terminal": true, "handle": [{"handler": "entry_test"}]}, {"handle": [{"handler": "entry_test", "respond": "second"}]}]`,
			"", "200 ",
		},
		"a route before the first handler that mounts": {
			`[{"handle": [{"handler": "entry_test", "off": true, "respond": "first"}]}, {"handle": [{"handler": "entry_test", "respond": "second", "prepare": "x"}]}]`,
			"", "200 first[x]",
		},
		"error routes": {
			`[{"handle": [{"handler": "entry_test", "fail": 403, "prepare": "x"}]}]`,
			`, "errors": {"routes": [{"match": [{"host": ["other"]}], "handle": [{"handler": "entry_test", "respond": "no"}]}, {"terminal": true, "handle": [{"handler": "entry_test", "respond": "sorry"}]}]}`,
			"200 sorry[x x]",
		},
		"error routes that do not respond": {
			`[{"handle": [{"handler": "entry_test", "fail": 403}]}]`,
			`, "errors": {"routes": [{"terminal": true, "handle": [{"handler": "entry_test"}]}]}`, "403 ",
		},
		"a handler among error routes alone": {
			`[{"handle": [{"handler": "entry_test", "off": true, "fail": 403}]}]`,
			`, "errors": {"routes": [{"handle": [{"handler": "entry_test", "respond": "sorry", "prepare": "x"}]}]}`, "200 sorry[x]",
		},
		"a named route": {
			`[{"handle": [{"handler": "invoke", "name": "n"}, {"handler": "entry_test", "off": true, "respond": "after"}]}]`,
			`, "named_routes": {"n": {"handle": [{"handler": "entry_test", "prepare": "x"}]}}`, "200 after[x]",
		},
		"a subroute beside a named route": {
			`[{"handle": [{"handler": "subroute", "routes": [{"handle": [{"handler": "entry_test", "off": true, "respond": "beside"}]}]}]}]`,
			`, "named_routes": {"n": {"handle": [{"handler": "entry_test", "prepare": "x"}]}}`, "200 beside[x]",
		},
	}
	for what, test := range tests {
		for _, metrics := range []string{"", `, "metrics": {}`} {
			if got := get(provisioned(t, test.routes, test.more+metrics), "a"); got != test.want {
				t.Errorf("%s%s: got %q, want %q", what, metrics, got, test.want)
			}
		}
	}
}

// A site is a terminal route. It is prepared once, regardless of the number of its
// modules.
func TestPrepareBelongsToASite(t *testing.T) {
	for _, metrics := range []string{"", `, "metrics": {}`} {
		server := provisioned(t, `[
		{"match": [{"host": ["a"]}], "terminal": true, "handle": [{"handler": "subroute", "routes": [
			{"match": [{"path": ["/x"]}], "handle": [{"handler": "entry_test", "prepare": "x"}]},
			{"handle": [{"handler": "entry_test", "prepare": "x", "respond": "a"}]}]}]},
		{"match": [{"host": ["b"]}, {"path": ["/b"]}], "terminal": true, "handle": [{"handler": "entry_test", "respond": "b"}]},
		{"match": [{"path": ["/c"]}, {"host": ["c"]}], "terminal": true, "handle": [{"handler": "entry_test", "respond": "c", "prepare": "x"}]},
		{"terminal": true, "handle": [{"handler": "entry_test", "respond": "d", "prepare": "x"}]}]`, metrics)
		for host, want := range map[string]string{"a": "200 a[x]", "b": "200 b[]", "c": "200 c[x]", "d": "200 d[x]"} {
			if got := get(server, host); got != want {
				t.Errorf("%s: got %q, want %q", host, got, want)
			}
		}
	}
}

func TestMalformedBodiesAreRecognized(t *testing.T) {
	for _, test := range []struct {
		err  error
		want bool
	}{
		{errors.New("malformed chunked encoding"), true},
		{errors.New("invalid byte in chunk length"), true},
		{errors.New("http: suspiciously long trailer after chunked body"), true},
		{errors.New("http: unexpected EOF reading trailer"), false},
		{io.ErrUnexpectedEOF, false},
		{&net.OpError{Op: "read", Err: syscall.ECONNRESET}, false},
		{fmt.Errorf("reading: %w", os.ErrDeadlineExceeded), false},
		{&http.MaxBytesError{Limit: 1}, false},
		{http.ErrBodyReadAfterClose, false},
		{context.Canceled, false},
	} {
		if got := isMalformed(test.err); got != test.want {
			t.Errorf("%v: got %t", test.err, got)
		}
	}
}

// nothing is a response writer that discards the body.
type nothing struct{ header http.Header }

func (w nothing) Header() http.Header         { return w.header }
func (w nothing) Write(p []byte) (int, error) { return len(p), nil }
func (w nothing) WriteHeader(int)             {}

// BenchmarkEntry measures the entry for a request without a body. It makes no more
// allocations than Caddy for a route.
func BenchmarkEntry(b *testing.B) {
	for _, off := range []bool{true, false} {
		b.Run(fmt.Sprintf("mounted=%t", !off), func(b *testing.B) {
			server := provisioned(b, fmt.Sprintf(`[{"handle": [{"handler": "entry_test", "off": %t, "respond": "x"}]}]`, off), "")
			r := httptest.NewRequest(http.MethodGet, "http://a/", strings.NewReader(""))
			w := nothing{make(http.Header)}
			b.ReportAllocs()
			for b.Loop() {
				server.ServeHTTP(w, r)
			}
		})
	}
}
