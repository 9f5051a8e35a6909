package integration

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/rgate/rgate/internal/testkit"
)

// tunnel is a connection whose protocol was switched.
type tunnel struct {
	net.Conn
	reader *bufio.Reader
}

// open switches protocols and sends the first bytes together with the request.
func (c *meterCount) open(t testing.TB, g *gateway) *tunnel {
	t.Helper()
	const early = "early bytes"
	conn, err := net.Dial("tcp", g.address())
	must(t, "dialing", err)
	t.Cleanup(func() { _ = conn.Close() })
	must(t, "setting a deadline", conn.SetDeadline(time.Now().Add(patience)))
	_, err = io.WriteString(conn, "GET /web/switch HTTP/1.1\r\nHost: gateway.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"+early)
	must(t, "asking for another protocol", err)
	reader := bufio.NewReader(conn)
	response, err := http.ReadResponse(reader, nil)
	if err != nil || response.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("got %v and %v, want 101", response, err)
	}
	got := make([]byte, 2*len(early))
	_, err = io.ReadFull(reader, got)
	must(t, "reading", err)
	c.out.Add(int64(len(early)))
	c.in.Add(int64(len(got)))
	return &tunnel{conn, reader}
}

func TestSwitchedProtocolsAreMeteredBothWays(t *testing.T) {
	t.Parallel()
	b := startMeterBackend(t)
	g := meterGateway(t, b)
	var client meterCount
	conn := client.open(t, g)
	for range 100 {
		frame := make([]byte, 1+rand.IntN(20_000))
		_, err := conn.Write(frame)
		must(t, "sending a frame", err)
		_, err = io.CopyN(io.Discard, conn.reader, int64(2*len(frame)))
		must(t, "reading two", err)
		client.out.Add(int64(len(frame)))
		client.in.Add(int64(2 * len(frame)))
	}
	g.agree(t, &client, &b.meterCount) // before the connection is closed
	if n := g.metric(t, "rgate_requests_in_flight", "backend", "web"); n != 1 {
		t.Errorf("%g tunnels are open, want one", n)
	}

	// Closing the client's write side must not close the backend's.
	last := []byte("the last frame")
	_, err := conn.Write(last)
	must(t, "sending the last frame", err)
	must(t, "closing a half", conn.Conn.(*net.TCPConn).CloseWrite())
	rest, err := io.ReadAll(conn.reader)
	if want := bytes.Repeat(last, 2); err != nil || !bytes.Equal(rest, want) {
		t.Errorf("read %q and %v, want %q", rest, err, want)
	}
	client.out.Add(int64(len(last)))
	client.in.Add(int64(len(rest)))
	g.agree(t, &client, &b.meterCount)
	testkit.Eventually(t, "the end is noticed", func() bool { return g.metric(t, "rgate_requests_in_flight") == 0 })
	g.agree(t, &client, &b.meterCount)
}

// A WebSocket over HTTP/2 is an extended CONNECT stream (RFC 8441).
func TestExtendedConnectIsMeteredBothWays(t *testing.T) {
	t.Parallel()
	b := startMeterBackend(t)
	g := meterGateway(t, b, "GODEBUG=http2xconnect=1")
	conn, err := net.Dial("tcp", g.address())
	must(t, "dialing", err)
	defer conn.Close()
	must(t, "setting a deadline", conn.SetDeadline(time.Now().Add(patience)))
	_, err = io.WriteString(conn, http2.ClientPreface)
	must(t, "sending the preface", err)
	frames := http2.NewFramer(conn, conn)
	must(t, "sending settings", frames.WriteSettings())

	var header bytes.Buffer
	fields := hpack.NewEncoder(&header)
	for _, field := range [][2]string{{":method", "CONNECT"}, {":protocol", "websocket"}, {":scheme", "http"}, {":path", "/web/switch"},
		{":authority", "gateway.example"}, {"sec-websocket-version", "13"}} {
		must(t, "encoding", fields.WriteField(hpack.HeaderField{Name: field[0], Value: field[1]}))
	}
	opened := false
	var client meterCount
	// receive reads frames until n bytes have arrived, after the response header.
	receive := func(n int64) {
		for opened && client.in.Load() < n || !opened {
			frame, err := frames.ReadFrame()
			must(t, "reading a frame", err)
			switch frame := frame.(type) {
			case *http2.SettingsFrame:
				if frame.IsAck() {
					continue
				}
				if enabled, _ := frame.Value(http2.SettingEnableConnectProtocol); enabled != 1 {
					t.Fatal("the gateway does not know extended CONNECT")
				}
				must(t, "acknowledging", frames.WriteSettingsAck())
				must(t, "opening a stream", frames.WriteHeaders(http2.HeadersFrameParam{
					StreamID: 1, BlockFragment: header.Bytes(), EndHeaders: true}))
			case *http2.HeadersFrame:
				header, err := hpack.NewDecoder(4096, nil).DecodeFull(frame.HeaderBlockFragment())
				must(t, "decoding", err)
				if header[0].Value != "200" {
					t.Fatalf("got %v, want 200", header)
				}
				opened = true
			case *http2.DataFrame:
				client.in.Add(int64(len(frame.Data())))
			case *http2.RSTStreamFrame, *http2.GoAwayFrame:
				t.Fatal(fmt.Sprint("got ", frame))
			}
		}
	}
	receive(0)
	for range 20 {
		message := make([]byte, 1+rand.IntN(1000))
		must(t, "sending", frames.WriteData(1, false, message))
		client.out.Add(int64(len(message)))
		receive(2 * client.out.Load())
	}
	g.agree(t, &client, &b.meterCount) // before the connection is closed
	must(t, "leaving", conn.Close())
	testkit.Eventually(t, "the end is noticed", func() bool {
		return g.metric(t, "rgate_requests_total", "code", "101") == 1 && g.metric(t, "rgate_requests_in_flight") == 0
	})
	g.agree(t, &client, &b.meterCount)
}
