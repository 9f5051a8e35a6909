package dockerupstreams

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// scanner is a JSON scanner that reads selected members of a value and skips the rest.
// Skipping is several times faster than with encoding/json, which matters at 1,000
// events per second. Only the members that are read are validated. After an error, all
// methods return zero values.
type scanner struct {
	text []byte
	at   int
	err  error
}

// fail records an error unless there is an earlier one.
func (s *scanner) fail(what string) {
	if s.err == nil {
		s.err = fmt.Errorf("invalid JSON: %s at byte %d of the value", what, s.at)
	}
	s.at = len(s.text)
}

// peek returns the next byte that is not whitespace, or 0 at the end.
func (s *scanner) peek() byte {
	for ; s.at < len(s.text); s.at++ {
		if c := s.text[s.at]; c != ' ' && c != '\n' && c != '\t' && c != '\r' {
			return c
		}
	}
	return 0
}

// list reads an array or object delimited by opens and closes, and calls item for each
// item. null is read as empty.
func (s *scanner) list(opens, closes byte, item func()) {
	switch s.peek() {
	case opens:
		s.at++
	case 'n':
		s.skip()
		return
	default:
		s.fail("no " + string(opens))
		return
	}
	if s.peek() == closes {
		s.at++
		return
	}
	for s.err == nil {
		item()
		switch s.peek() {
		case ',':
			s.at++
		case closes:
			s.at++
			return
		default:
			s.fail("expected , or " + string(closes))
		}
	}
}

// array calls item for each item, which must read or skip it.
func (s *scanner) array(item func()) { s.list('[', ']', item) }

// object calls member with the name of each member, which must read or skip the value.
// The name is only valid during the call.
func (s *scanner) object(member func(name []byte)) {
	s.list('{', '}', func() {
		name := s.literal()
		if bytes.IndexByte(name, '\\') >= 0 {
			name = []byte(unescape(name))
		} else if len(name) >= 2 {
			name = name[1 : len(name)-1]
		}
		if s.peek() != ':' {
			s.fail("no :")
			return
		}
		s.at++
		member(name)
	})
}

// string reads a string. null is read as "".
func (s *scanner) string() string {
	if s.peek() == 'n' {
		s.skip()
		return ""
	}
	literal := s.literal()
	switch {
	case len(literal) < 2:
		return ""
	case bytes.IndexByte(literal, '\\') >= 0:
		return unescape(literal)
	default:
		return string(literal[1 : len(literal)-1])
	}
}

// number reads a nonnegative integer. null is read as 0.
func (s *scanner) number() (n int64) {
	if s.peek() == 'n' {
		s.skip()
		return 0
	}
	begin := s.at
	for ; s.at < len(s.text) && s.text[s.at] >= '0' && s.text[s.at] <= '9' && s.at-begin < 19; s.at++ {
		n = n*10 + int64(s.text[s.at]-'0')
	}
	if s.at == begin || n < 0 {
		s.fail("expected a number")
		return 0
	}
	return n
}

// literal reads a string and returns it with its quotes, undecoded.
func (s *scanner) literal() []byte {
	if s.peek() != '"' {
		s.fail("expected a string")
		return nil
	}
	begin := s.at
	for i := s.at + 1; ; i++ {
		n := bytes.IndexByte(s.text[min(i, len(s.text)):], '"')
		if n < 0 {
			s.fail("unterminated string")
			return nil
		}
		i += n
		if !escaped(s.text[begin+1 : i]) {
			s.at = i + 1
			return s.text[begin:s.at]
		}
	}
}

// escaped reports whether text ends with an odd number of backslashes, which escape the
// next byte.
func escaped(text []byte) bool {
	n := len(text)
	for n > 0 && text[n-1] == '\\' {
		n--
	}
	return (len(text)-n)%2 == 1
}

func unescape(literal []byte) string {
	var text string
	_ = json.Unmarshal(literal, &text)
	return text
}

// skip skips the next value.
func (s *scanner) skip() {
	switch c := s.peek(); {
	case c == '"':
		s.literal()
	case c == '{' || c == '[':
		end := valueEnd(s.text[s.at:])
		if end < 0 {
			s.fail("unterminated value")
			return
		}
		s.at += end
	default:
		begin := s.at
		for s.at < len(s.text) && bytes.IndexByte([]byte(",]} \n\t\r:\""), s.text[s.at]) < 0 {
			s.at++
		}
		if s.at == begin {
			s.fail("expected a value")
		}
	}
}

// valueEnd returns the length of the object or array at the start of text, or -1 if it
// is incomplete.
func valueEnd(text []byte) int {
	depth, quoted := 0, false
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '{' || c == '[':
			depth++
		case c == '}' || c == ']':
			if depth--; depth <= 0 {
				return i + 1
			}
		}
	}
	return -1
}

// The maximum size of a value in a stream, in bytes. The description of a container is
// usually a few kilobytes.
const mostValue = 8 << 20

var errTooLarge = errors.New("a value is larger than 8 MiB")

// values reads a stream of JSON objects.
type values struct {
	from io.Reader
	buf  []byte // buf[at:] holds the unread bytes
	at   int
}

func newValues(from io.Reader) *values {
	return &values{from: from, buf: make([]byte, 0, 16<<10)}
}

// more calls Read once and appends the bytes to the buffer.
func (v *values) more() error {
	if v.at > 0 {
		v.buf = v.buf[:copy(v.buf, v.buf[v.at:])]
		v.at = 0
	}
	if len(v.buf) == cap(v.buf) {
		if len(v.buf) >= mostValue {
			return errTooLarge
		}
		v.buf = append(make([]byte, 0, 2*cap(v.buf)), v.buf...)
	}
	n, err := v.from.Read(v.buf[len(v.buf):cap(v.buf)])
	v.buf = v.buf[:len(v.buf)+n]
	if n > 0 {
		return nil // the next read returns the error again
	}
	return err
}

// peek returns the next byte that is not whitespace, and reads from the stream if
// needed.
func (v *values) peek() (byte, error) {
	for {
		for ; v.at < len(v.buf); v.at++ {
			if c := v.buf[v.at]; c != ' ' && c != '\n' && c != '\t' && c != '\r' {
				return c, nil
			}
		}
		if err := v.more(); err != nil {
			return 0, err
		}
	}
}

// buffered returns the next object if the buffer contains all of it, else nil. The
// result is valid until the next call.
func (v *values) buffered() ([]byte, error) {
	s := scanner{text: v.buf, at: v.at}
	switch c := s.peek(); c {
	case 0:
		return nil, nil
	case '{':
	default:
		return nil, fmt.Errorf("invalid character %q: must be the beginning of an object", c)
	}
	n := valueEnd(v.buf[s.at:])
	if n < 0 {
		return nil, nil
	}
	v.at = s.at + n
	return v.buf[s.at:v.at], nil
}

// next returns the next object. The result is valid until the next call.
func (v *values) next() ([]byte, error) {
	for {
		value, err := v.buffered()
		if value != nil || err != nil {
			return value, err
		}
		if err := v.more(); err != nil {
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return nil, err
		}
	}
}
