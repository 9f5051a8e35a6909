package integration

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/quic-go/quic-go/http3"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// The clients in this file send HTTP/2 and HTTP/3 requests to a gateway with all
// versions, either whole or field by field.

// allVersions is a gateway that serves HTTP/1.1 and h2c on its port, and HTTP/1.1, 2 and
// 3 over TLS on another.
type allVersions struct {
	*gateway
	tls int // the TLS port, for TCP and UDP
}

// startAllVersions runs a gateway until the test ends. site is the content of a Caddyfile
// site, which is served with and without TLS. options are global options. Extended
// CONNECT over HTTP/2 is enabled.
func startAllVersions(t testing.TB, site, options string, env ...string) *allVersions {
	t.Helper()
	certificate, key := testCertificate(t)
	port := freePort(t)
	g := launch(t, "Caddyfile", fmt.Sprintf(`{
	admin localhost:$ADMIN
	auto_https off
	servers {
		protocols h1 h2 h2c h3
	}
%s
}
(site) {
%s
}
http://:$PORT {
	import site
}
https://:%d {
	tls %s %s
	import site
}
`, options, site, port, certificate, key), append(env, "GODEBUG=http2xconnect=1"), "run", "--config", "$FILE")
	return &allVersions{g, port}
}

// testCertificate writes a self-signed certificate for localhost with its key, and
// returns their paths.
func testCertificate(t testing.TB) (certificate, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, "making a key", err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	must(t, "making a certificate", err)
	encoded, err := x509.MarshalPKCS8PrivateKey(private)
	must(t, "encoding the key", err)
	folder := t.TempDir()
	certificate, key = filepath.Join(folder, "cert.pem"), filepath.Join(folder, "key.pem")
	must(t, "writing the certificate", os.WriteFile(certificate, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600))
	must(t, "writing the key", os.WriteFile(key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: encoded}), 0o600))
	return certificate, key
}

func clientTLS(protocols ...string) *tls.Config {
	return &tls.Config{InsecureSkipVerify: true, ServerName: "localhost", NextProtos: protocols}
}

func (g *allVersions) tlsAddress() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(g.tls)) }

// tlsURL returns the gateway's HTTPS URL with the given path and query.
func (g *allVersions) tlsURL(target string) string { return "https://" + g.tlsAddress() + target }

// versions returns a client for each version, with its base URL.
func (g *allVersions) versions(t testing.TB) []versionClient {
	return []versionClient{
		{"HTTP/1.1", newClient(t), g.url("")},
		{"HTTP/1.1 over TLS", g.tlsClient(t, false), g.tlsURL("")},
		{"h2c", h2cClient(t), g.url("")},
		{"HTTP/2", g.tlsClient(t, true), g.tlsURL("")},
		{"HTTP/3", h3Client(t), g.tlsURL("")},
	}
}

// versionClient is a client for one version of HTTP.
type versionClient struct {
	name string
	*http.Client
	base string
}

// ask sends a request and returns the response. headers are alternating names and values.
// A request with a body has a Content-Length.
func (c versionClient) ask(t testing.TB, method, target, body string, headers ...string) response {
	t.Helper()
	var reader io.Reader
	if body != "" {
		reader = strings.NewReader(body)
	}
	request, err := http.NewRequestWithContext(t.Context(), method, c.base+target, reader)
	must(t, "making a request", err)
	for i := 0; i+1 < len(headers); i += 2 {
		request.Header.Set(headers[i], headers[i+1])
	}
	got, err := do(c.Client, request)
	must(t, c.name+" "+method+" "+target, err)
	return got
}

func noRedirects(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

// tlsClient returns a client for HTTP/2 over TLS if two is set, otherwise for HTTP/1.1.
func (g *allVersions) tlsClient(t testing.TB, two bool) *http.Client {
	transport := &http.Transport{TLSClientConfig: clientTLS(), DisableCompression: true, Protocols: new(http.Protocols)}
	transport.Protocols.SetHTTP1(!two)
	transport.Protocols.SetHTTP2(two)
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, CheckRedirect: noRedirects}
}

// h2cClient returns a client for HTTP/2 without TLS.
func h2cClient(t testing.TB) *http.Client {
	transport := &http.Transport{DisableCompression: true, Protocols: new(http.Protocols)}
	transport.Protocols.SetUnencryptedHTTP2(true)
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, CheckRedirect: noRedirects}
}

// h3Client returns a client for HTTP/3.
func h3Client(t testing.TB) *http.Client {
	transport := &http3.Transport{TLSClientConfig: clientTLS(), DisableCompression: true}
	t.Cleanup(func() { _ = transport.Close() })
	return &http.Client{Transport: transport, CheckRedirect: noRedirects}
}

// rawConn is an HTTP/2 or HTTP/3 connection whose requests are written field by field.
type rawConn interface {
	// open sends a request header. fields are alternating names and values, in this
	// order, including pseudo-header fields. If end is set, the request has no body.
	open(t testing.TB, end bool, fields ...string) rawStream
}

// rawStream is a request and its response.
type rawStream interface {
	// write sends a part of the body. If end is set, the part is the last one.
	write(t testing.TB, data string, end bool)

	// event waits for the next part of the response.
	event(t testing.TB) rawEvent
}

// rawEvent is a part of a response: header, trailers, data, or the end.
type rawEvent struct {
	fields http.Header // a header or trailers, with :status
	data   string
	end    bool // the last event
	reset  bool // the stream was reset
}

// rawResponse is a response received on a rawStream.
type rawResponse struct {
	response
	informational []int // statuses of preceding 1xx responses
	reset         bool  // the stream was reset
}

// readHeader reads the header of the final response. ended reports whether the response
// has no body.
func readHeader(t testing.TB, stream rawStream) (got rawResponse, ended bool) {
	t.Helper()
	for {
		event := stream.event(t)
		if event.fields != nil {
			status, err := strconv.Atoi(event.fields.Get(":status"))
			must(t, "reading a status", err)
			if status < 200 && !event.end {
				got.informational = append(got.informational, status)
				continue
			}
			got.status, got.header = status, event.fields
		}
		got.reset = event.reset
		return got, event.end
	}
}

// readResponse reads a complete response.
func readResponse(t testing.TB, stream rawStream) rawResponse {
	t.Helper()
	got, ended := readHeader(t, stream)
	var body strings.Builder
	for !ended {
		event := stream.event(t)
		body.WriteString(event.data)
		if event.fields != nil {
			got.trailer = event.fields
		}
		ended, got.reset = event.end, event.reset
	}
	got.body = body.String()
	return got
}

// readData reads a response body until it has size bytes or ends.
func readData(t testing.TB, stream rawStream, size int) string {
	t.Helper()
	var body strings.Builder
	for body.Len() < size {
		event := stream.event(t)
		body.WriteString(event.data)
		if event.end {
			break
		}
	}
	return body.String()
}

// rawVersions opens one connection each for h2c, HTTP/2 over TLS, and HTTP/3.
func (g *allVersions) rawVersions(t testing.TB) map[string]rawConn {
	t.Helper()
	return map[string]rawConn{"h2c": g.rawH2(t, false), "HTTP/2": g.rawH2(t, true), "HTTP/3": g.rawH3(t)}
}

// h2Conn is an HTTP/2 connection. It is not safe for concurrent use.
type h2Conn struct {
	framer  *http2.Framer
	encoded bytes.Buffer
	encoder *hpack.Encoder
	last    uint32
	events  map[uint32][]rawEvent // by stream ID
}

func (g *allVersions) rawH2(t testing.TB, withTLS bool) *h2Conn {
	t.Helper()
	var conn net.Conn
	var err error
	if withTLS {
		conn, err = tls.Dial("tcp", g.tlsAddress(), clientTLS("h2"))
	} else {
		conn, err = net.Dial("tcp", g.address())
	}
	must(t, "dialing the gateway", err)
	t.Cleanup(func() { _ = conn.Close() })
	return speakH2(t, conn)
}

// speakH2 sends the connection preface and waits for the server's settings.
func speakH2(t testing.TB, conn net.Conn) *h2Conn {
	t.Helper()
	must(t, "setting a deadline", conn.SetDeadline(time.Now().Add(3*patience)))
	_, err := io.WriteString(conn, http2.ClientPreface)
	must(t, "sending the preface", err)
	c := &h2Conn{framer: http2.NewFramer(conn, conn), events: make(map[uint32][]rawEvent)}
	c.encoder = hpack.NewEncoder(&c.encoded)
	c.framer.AllowIllegalWrites = true
	c.framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	must(t, "sending settings", c.framer.WriteSettings(http2.Setting{ID: http2.SettingEnablePush, Val: 0}))
	for len(c.events[0]) == 0 { // the server's settings, which may enable extended CONNECT
		must(t, "reading settings", c.next())
	}
	return c
}

func (c *h2Conn) open(t testing.TB, end bool, fields ...string) rawStream {
	t.Helper()
	c.encoded.Reset()
	for i := 0; i+1 < len(fields); i += 2 {
		must(t, "encoding a field", c.encoder.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]}))
	}
	if c.last == 0 {
		c.last = 1
	} else {
		c.last += 2
	}
	err := c.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: c.last, BlockFragment: c.encoded.Bytes(), EndHeaders: true, EndStream: end})
	must(t, "sending a header", err)
	return &h2Stream{c, c.last}
}

// next reads a frame and adds its event to the stream.
func (c *h2Conn) next() error {
	frame, err := c.framer.ReadFrame()
	var broken http2.StreamError
	if errors.As(err, &broken) {
		c.events[broken.StreamID] = append(c.events[broken.StreamID], rawEvent{end: true, reset: true})
		return nil
	}
	if err != nil {
		return err
	}
	id := frame.Header().StreamID
	event := rawEvent{end: frame.Header().Flags.Has(http2.FlagDataEndStream)}
	switch frame := frame.(type) {
	case *http2.SettingsFrame:
		if frame.IsAck() {
			return nil
		}
		if err := c.framer.WriteSettingsAck(); err != nil {
			return err
		}
		event = rawEvent{}
	case *http2.PingFrame:
		return c.framer.WritePing(true, frame.Data)
	case *http2.GoAwayFrame:
		if frame.ErrCode == http2.ErrCodeNo { // open streams continue
			return nil
		}
		return fmt.Errorf("the gateway went away: %s %s", frame.ErrCode, frame.DebugData())
	case *http2.MetaHeadersFrame:
		event.fields = make(http.Header)
		for _, field := range frame.Fields {
			event.fields[http.CanonicalHeaderKey(field.Name)] = append(event.fields[http.CanonicalHeaderKey(field.Name)], field.Value)
		}
	case *http2.DataFrame:
		event.data = string(frame.Data())
		if n := frame.Header().Length; n > 0 {
			if err := errors.Join(c.framer.WriteWindowUpdate(0, n), c.framer.WriteWindowUpdate(id, n)); err != nil {
				return err
			}
		}
	case *http2.RSTStreamFrame:
		event = rawEvent{end: true, reset: frame.ErrCode != http2.ErrCodeNo}
	default:
		return nil
	}
	c.events[id] = append(c.events[id], event)
	return nil
}

type h2Stream struct {
	*h2Conn
	id uint32
}

func (s *h2Stream) write(t testing.TB, data string, end bool) {
	t.Helper()
	must(t, "sending data", s.framer.WriteData(s.id, end, []byte(data)))
}

func (s *h2Stream) event(t testing.TB) rawEvent {
	t.Helper()
	for len(s.events[s.id]) == 0 {
		if err := s.next(); err != nil {
			t.Logf("reading a frame: %v", err)
			return rawEvent{end: true, reset: true}
		}
	}
	event := s.events[s.id][0]
	s.events[s.id] = s.events[s.id][1:]
	return event
}

// TestClientsOfAllVersions tests the clients in this file.
func TestClientsOfAllVersions(t *testing.T) {
	t.Parallel()
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s %s %q", r.Method, r.RequestURI, body)
	}))
	t.Cleanup(backend.Close)
	g := startAllVersions(t, `rgate {
		backend web {
			dial `+backend.Listener.Addr().String()+`
		}
		route / web
	}`, "")
	for _, client := range g.versions(t) {
		if got := client.ask(t, "POST", "/a?b", "c"); got.status != 200 || got.body != `POST /a?b "c"` {
			t.Errorf("%s: got %d with %q", client.name, got.status, got.body)
		}
	}
	for name, conn := range g.rawVersions(t) {
		for _, parts := range [][]string{nil, {"c"}, {"c", "d"}} {
			stream := conn.open(t, parts == nil, ":method", "POST", ":scheme", "https", ":authority", "localhost", ":path", "/a?b")
			for i, part := range parts {
				stream.write(t, part, i == len(parts)-1)
			}
			got, want := readResponse(t, stream), fmt.Sprintf("POST /a?b %q", strings.Join(parts, ""))
			if got.status != 200 || got.body != want {
				t.Errorf("%s: got %d with %q, want %s", name, got.status, got.body, want)
			}
		}
	}
}
