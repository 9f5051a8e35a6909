package integration

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"text/template"
	"unicode/utf8"

	"golang.org/x/tools/txtar"
)

// wireEntry is an entry of testdata/wire. Its README.md describes the format.
type wireEntry struct {
	name     string
	requests []wireRequest
	backend  wireResponse
	expect   wireExpect
}

// wireRequest is a sequence of bytes that the client sends in one write.
type wireRequest struct {
	bytes string
	after int // number of responses to read before sending
	ends  bool
}

// wireResponse is the backend's response to each request.
type wireResponse struct {
	bytes                     string
	beforeBody, close, resets bool
}

// wireExpect is the expected result at the client and the backend.
type wireExpect struct {
	over       []string // protocols between client and gateway
	trusted    bool     // the client is a trusted proxy
	responses  []wireStatus
	connection string
	tunnel     string

	backend          []wireLine // requests at the backend
	fields, noFields []string   // of the last request
	body             *string
	clientFields     []string // of the last response
	clientNoFields   []string
	clientBody       *string
}

// wireLine is the method and target of a request.
type wireLine struct {
	text  string
	maybe bool // optional
}

// wireStatus is an expected response. The status 0 means no response.
type wireStatus struct {
	statuses []int
	head     bool // response to a HEAD request
	cut      bool // the body is truncated
}

// wireInner is a request of 41 bytes for use inside bodies.
const wireInner = `GET /open/inner HTTP/1.1\r\nHost: inner\r\n\r\n`

// wireProtocols are the protocols of entries: HTTP/1.1 over TCP, HTTP/1.1 over TLS,
// HTTP/2 and HTTP/3.
var wireProtocols = []string{"tcp", "tls", "h2", "h3"}

func readWireEntries(t *testing.T) (entries []*wireEntry) {
	t.Helper()
	files, err := filepath.Glob("testdata/wire/*/*.txtar")
	must(t, "listing the corpus", err)
	for _, file := range files {
		text, err := os.ReadFile(file)
		must(t, "reading the corpus", err)
		name, _ := filepath.Rel("testdata/wire", strings.TrimSuffix(file, ".txtar"))
		entry, err := parseWireEntry(name, text)
		if err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		entries = append(entries, entry)
	}
	return entries
}

func parseWireEntry(name string, text []byte) (*wireEntry, error) {
	archive := txtar.Parse(text)
	if !bytes.Contains(archive.Comment, []byte("RFC ")) {
		return nil, errors.New("the comment has to name the section of the RFC that says what is right")
	}
	e := &wireEntry{name: name, expect: wireExpect{over: wireProtocols[:2], connection: "open"}}
	e.backend.bytes = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
	for _, section := range archive.Files {
		title, options, _ := strings.Cut(section.Name, ", ")
		text, err := wireBytes(string(section.Data))
		if err != nil {
			return nil, fmt.Errorf("section %q: %w", section.Name, err)
		}
		switch title {
		case "request":
			e.requests = append(e.requests, wireRequest{bytes: text})
		case "then":
			e.requests = append(e.requests, wireRequest{bytes: text, after: 1})
		case "backend response":
			e.backend.bytes = text
		case "expect":
			err = e.expect.parse(string(section.Data))
		default:
			err = fmt.Errorf("unknown section %q", title)
		}
		for _, option := range strings.Split(options, ", ") {
			switch {
			case option == "":
			case title == "backend response" && option == "before body":
				e.backend.beforeBody = true
			case title == "backend response" && option == "then close":
				e.backend.close = true
			case title == "backend response" && option == "then reset":
				e.backend.resets = true
			case title != "backend response" && option == "then end":
				e.requests[len(e.requests)-1].ends = true
			default:
				err = fmt.Errorf("unknown option %q", option)
			}
		}
		if err != nil {
			return nil, fmt.Errorf("section %q: %w", section.Name, err)
		}
	}
	for i := range e.requests[1:] {
		e.requests[i+1].after += e.requests[i].after
	}
	if len(e.requests) == 0 || len(e.expect.responses) == 0 || e.expect.backend == nil {
		return nil, errors.New("an entry has a request, and expects a response and what reaches the backend")
	}
	return e, nil
}

// wireBytes decodes a section. It executes the template and interprets escapes as Go
// strings do. Lines end in CRLF, unless they end with a backslash.
func wireBytes(text string) (string, error) {
	repeat := func(count int, text string) string { return strings.Repeat(text, count) }
	inner := func(count int) string { return strings.Repeat(wireInner, count) }
	parsed, err := template.New("").Funcs(template.FuncMap{"repeat": repeat, "inner": inner}).Parse(text)
	if err != nil {
		return "", err
	}
	var executed strings.Builder
	if err := parsed.Execute(&executed, nil); err != nil {
		return "", err
	}
	var b strings.Builder
	for line := range strings.Lines(executed.String()) {
		line, end := strings.TrimSuffix(line, "\n"), "\r\n"
		if backslashes := len(line) - len(strings.TrimRight(line, `\`)); backslashes%2 == 1 {
			line, end = line[:len(line)-1], ""
		}
		for line != "" {
			char, multibyte, rest, err := strconv.UnquoteChar(line, 0)
			if err != nil {
				return "", fmt.Errorf("%q: %w", line, err)
			}
			if line = rest; multibyte && char >= utf8.RuneSelf {
				b.WriteRune(char)
			} else {
				b.WriteByte(byte(char))
			}
		}
		b.WriteString(end)
	}
	return b.String(), nil
}

func (x *wireExpect) parse(text string) error {
	for line := range strings.Lines(text) {
		key, value, ok := strings.Cut(strings.TrimSpace(line), ":")
		if key == "" && !ok {
			continue
		}
		value = strings.TrimSpace(value)
		unescaped := func() (*string, error) {
			bytes, err := wireBytes(value + `\`)
			return &bytes, err
		}
		var err error
		switch key {
		case "over":
			x.over = strings.Fields(value)
			for _, protocol := range x.over {
				if !slices.Contains(wireProtocols, protocol) {
					err = fmt.Errorf("unknown protocol %q", protocol)
				}
			}
		case "peer":
			if x.trusted = value == "trusted"; !x.trusted {
				err = fmt.Errorf("unknown peer %q", value)
			}
		case "response":
			var status wireStatus
			status, err = parseWireStatus(value)
			x.responses = append(x.responses, status)
		case "connection":
			if x.connection = value; !slices.Contains([]string{"open", "closed", "closed or reset", "any"}, value) {
				err = fmt.Errorf("unknown state %q", value)
			}
		case "tunnel":
			var tunnel *string
			tunnel, err = unescaped()
			x.tunnel, x.connection = *tunnel, "tunnel"
		case "backend", "backend maybe":
			if x.backend == nil {
				x.backend = []wireLine{}
			}
			if value != "none" {
				var line *string
				line, err = unescaped()
				x.backend = append(x.backend, wireLine{*line, key == "backend maybe"})
			}
		case "backend field":
			var field *string
			field, err = unescaped()
			x.fields = append(x.fields, *field)
		case "backend no field":
			x.noFields = append(x.noFields, value)
		case "backend body":
			x.body, err = unescaped()
		case "client field":
			x.clientFields = append(x.clientFields, value)
		case "client no field":
			x.clientNoFields = append(x.clientNoFields, value)
		case "client body":
			x.clientBody, err = unescaped()
		default:
			err = fmt.Errorf("unknown key %q", key)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// parseWireStatus parses `200`, `400 or 501`, `200 to HEAD`, `200 cut` or `none`.
func parseWireStatus(text string) (s wireStatus, err error) {
	text, s.head = strings.CutSuffix(text, " to HEAD")
	text, s.cut = strings.CutSuffix(text, " cut")
	for _, word := range strings.Split(text, " or ") {
		status := 0
		if word != "none" {
			if status, err = strconv.Atoi(word); err != nil {
				return s, err
			}
		}
		s.statuses = append(s.statuses, status)
	}
	return s, nil
}

// fields returns the request for HTTP/2 and HTTP/3. Its header is a list of alternating
// names and values, including pseudo-header fields. Requests in HTTP/1.1 format are
// translated.
func (r wireRequest) fields() (fields []string, body string) {
	header, body, _ := strings.Cut(r.bytes, "\r\n\r\n")
	lines := strings.Split(header, "\r\n")
	if !strings.HasPrefix(lines[0], ":") {
		method, rest, _ := strings.Cut(lines[0], " ")
		target := strings.TrimSuffix(rest, " HTTP/1.1")
		fields = []string{":method", method, ":scheme", "https", ":path", target}
		lines = lines[1:]
	}
	for _, line := range lines {
		colon := 1 + strings.Index(line[1:], ":")
		name, value := line[:colon], strings.TrimPrefix(line[colon+1:], " ")
		switch {
		case len(fields) == 6 && name == "Host":
			fields = append(fields, ":authority", value)
		case !strings.HasPrefix(lines[0], ":"):
			fields = append(fields, strings.ToLower(name), value)
		default:
			fields = append(fields, name, value)
		}
	}
	return fields, body
}
