package integration

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/quic-go/qpack"
	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/quicvarint"
)

// h3Conn is an HTTP/3 connection.
type h3Conn struct{ *quic.Conn }

// Types of HTTP/3 streams and frames (RFC 9114, sections 6.2 and 7.2).
const (
	h3ControlStream = 0x00
	h3Data          = 0x00
	h3Headers       = 0x01
	h3Settings      = 0x04
)

func (g *allVersions) rawH3(t testing.TB) *h3Conn {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	conn, err := quic.DialAddr(ctx, g.tlsAddress(), clientTLS("h3"), nil)
	must(t, "dialing the gateway", err)
	return speakH3(t, conn)
}

// speakH3 sends the client's HTTP/3 settings. The connection is closed when the test
// ends.
func speakH3(t testing.TB, conn *quic.Conn) *h3Conn {
	t.Helper()
	t.Cleanup(func() { _ = conn.CloseWithError(0x100, "") }) // H3_NO_ERROR
	control, err := conn.OpenUniStream()
	must(t, "opening the control stream", err)
	_, err = control.Write([]byte{h3ControlStream, h3Settings, 0})
	must(t, "sending settings", err)
	return &h3Conn{conn}
}

func (c *h3Conn) open(t testing.TB, end bool, fields ...string) rawStream {
	t.Helper()
	stream, err := c.OpenStream()
	must(t, "opening a stream", err)
	must(t, "setting a deadline", stream.SetDeadline(time.Now().Add(3*patience)))
	var block bytes.Buffer
	encoder := qpack.NewEncoder(&block)
	for i := 0; i+1 < len(fields); i += 2 {
		must(t, "encoding a field", encoder.WriteField(qpack.HeaderField{Name: fields[i], Value: fields[i+1]}))
	}
	s := &h3Stream{Stream: stream, frames: quicvarint.NewReader(stream)}
	s.frame(t, h3Headers, block.Bytes(), end)
	return s
}

type h3Stream struct {
	*quic.Stream
	frames quicvarint.Reader
}

func (s *h3Stream) frame(t testing.TB, kind uint64, payload []byte, end bool) {
	t.Helper()
	frame := quicvarint.Append(quicvarint.Append(nil, kind), uint64(len(payload)))
	_, err := s.Write(append(frame, payload...))
	if reset := new(quic.StreamError); err != nil && !errors.As(err, &reset) { // a stopped stream is reported with the response
		t.Fatalf("sending a frame: %v", err)
	}
	if end {
		_ = s.Close()
	}
}

func (s *h3Stream) write(t testing.TB, data string, end bool) {
	t.Helper()
	s.frame(t, h3Data, []byte(data), end)
}

func (s *h3Stream) event(t testing.TB) rawEvent {
	t.Helper()
	for {
		kind, payload, err := s.next()
		switch {
		case err == io.EOF:
			return rawEvent{end: true}
		case err != nil:
			t.Logf("reading a frame: %v", err)
			return rawEvent{end: true, reset: true}
		case kind == h3Data:
			return rawEvent{data: string(payload)}
		case kind == h3Headers:
			fields := make(http.Header)
			decode := qpack.NewDecoder().Decode(payload)
			for field, err := decode(); err != io.EOF; field, err = decode() {
				must(t, "decoding a field", err)
				fields[http.CanonicalHeaderKey(field.Name)] = append(fields[http.CanonicalHeaderKey(field.Name)], field.Value)
			}
			return rawEvent{fields: fields}
		}
	}
}

func (s *h3Stream) next() (kind uint64, payload []byte, err error) {
	if kind, err = quicvarint.Read(s.frames); err != nil {
		return 0, nil, err
	}
	size, err := quicvarint.Read(s.frames)
	if err != nil {
		return 0, nil, io.ErrUnexpectedEOF
	}
	payload = make([]byte, size)
	_, err = io.ReadFull(s.frames, payload)
	return kind, payload, err
}
