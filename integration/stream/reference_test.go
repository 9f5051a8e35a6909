package stream

import (
	"strconv"
	"strings"
)

// message is a request as a strict reader of RFC 9112 frames it.
type message struct {
	method, target, body string

	complete bool // whether the body is complete
}

// parse splits a stream into requests. A request that is malformed or has ambiguous
// framing ends the stream. tail reports whether bytes follow the last complete request,
// which may cause one more response.
//
// Checks other than framing are lenient: the gateway may reject a parsed request.
func parse(stream string) (requests []message, tail bool) {
	for {
		stream = strings.TrimLeft(stream, "\r\n")
		if stream == "" {
			return requests, false
		}
		header, rest, ok := cutHeader(stream)
		if !ok {
			return requests, true
		}
		request, fields, ok := parseHeader(header)
		if !ok {
			return requests, true
		}
		body, last, ok := frame(request, fields)
		if !ok {
			return requests, true
		}
		request.body, stream, request.complete = body(rest)
		requests = append(requests, request.message)
		if !request.complete {
			return requests, true
		}
		if last {
			return requests, false
		}
	}
}

// head is a request without its body.
type head struct {
	message
	old bool // HTTP/1.0
}

// cutHeader splits a stream after the empty line that ends a header. Lines end in LF or
// CRLF (RFC 9112, section 2.2).
func cutHeader(stream string) (header, rest string, ok bool) {
	for at := 0; ; {
		length := strings.IndexByte(stream[at:], '\n')
		if length < 0 {
			return "", "", false
		}
		line := strings.TrimSuffix(stream[at:at+length], "\r")
		at += length + 1
		if line == "" {
			return stream[:at], stream[at:], true
		}
	}
}

func parseHeader(text string) (request head, fields map[string][]string, ok bool) {
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	first := strings.Split(strings.TrimSuffix(lines[0], "\r"), " ")
	if len(first) != 3 || !isToken(first[0]) || first[1] == "" {
		return request, nil, false
	}
	major, minor, _ := strings.Cut(strings.TrimPrefix(first[2], "HTTP/"), ".")
	if len(first[2]) != len("HTTP/1.1") || major != "1" || !isDigits(minor) {
		return request, nil, false
	}
	request.method, request.target, request.old = first[0], first[1], minor == "0"
	fields = make(map[string][]string)
	name := ""
	for _, line := range lines[1:] {
		line = strings.TrimSuffix(line, "\r")
		switch {
		case line == "":
			return request, fields, true
		case strings.ContainsFunc(line, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }):
			return request, nil, false
		case line[0] == ' ' || line[0] == '\t': // obs-fold becomes a space (RFC 9112, section 5.2)
			if name == "" {
				return request, nil, false
			}
			values := fields[name]
			values[len(values)-1] = strings.Trim(values[len(values)-1]+" "+strings.Trim(line, " \t"), " \t")
		default:
			key, value, found := strings.Cut(line, ":")
			if !found || !isToken(key) {
				return request, nil, false
			}
			name = strings.ToLower(key)
			fields[name] = append(fields[name], strings.Trim(value, " \t"))
		}
	}
	return request, fields, true
}

// frame returns a function that reads the request's body, and reports whether the
// connection ends after it. ok is false if the framing is ambiguous (RFC 9112, section
// 6.3).
func frame(request head, fields map[string][]string) (body func(string) (string, string, bool), last, ok bool) {
	last = request.old
	for _, value := range fields["connection"] {
		for option := range strings.SplitSeq(value, ",") {
			switch strings.ToLower(strings.Trim(option, " \t")) {
			case "close":
				return finish(request, fields, true)
			case "keep-alive":
				last = false
			}
		}
	}
	return finish(request, fields, last)
}

func finish(request head, fields map[string][]string, last bool) (body func(string) (string, string, bool), _, ok bool) {
	codings, lengths := fields["transfer-encoding"], fields["content-length"]
	if len(codings) > 0 && request.old {
		// RFC 9112, section 6.1: the framing is faulty. The request may be served, but is
		// the last one.
		return func(rest string) (string, string, bool) { return rest, "", false }, true, true
	}
	if len(codings) > 0 {
		if len(codings) > 1 || !strings.EqualFold(codings[0], "chunked") {
			return nil, false, false
		}
		return chunks, last, true
	}
	size := uint64(0)
	for i, text := range lengths {
		number, err := strconv.ParseUint(text, 10, 63)
		if err != nil || !isDigits(text) || i > 0 && number != size {
			return nil, false, false
		}
		size = number
	}
	return func(rest string) (string, string, bool) {
		if uint64(len(rest)) < size {
			return rest, "", false
		}
		return rest[:size], rest[size:], true
	}, last, true
}

// chunks decodes a chunked body (RFC 9112, section 7.1).
func chunks(rest string) (body, after string, ok bool) {
	var b strings.Builder
	for {
		line, tail, found := strings.Cut(rest, "\n")
		if !found {
			return b.String(), "", false
		}
		line, hasReturn := strings.CutSuffix(line, "\r")
		digits, extension, _ := strings.Cut(line, ";")
		digits = strings.TrimRight(digits, " \t")
		size, err := strconv.ParseUint(digits, 16, 62)
		if !hasReturn || err != nil || strings.ContainsAny(digits, "+-_") || strings.ContainsAny(extension, "\r") {
			return b.String(), "", false
		}
		rest = tail
		if size == 0 {
			break
		}
		if uint64(len(rest)) < size+2 {
			b.WriteString(rest[:min(uint64(len(rest)), size)])
			return b.String(), "", false
		}
		b.WriteString(rest[:size])
		if rest[size:size+2] != "\r\n" {
			return b.String(), "", false
		}
		rest = rest[size+2:]
	}
	if strings.HasPrefix(rest, "\r\n") {
		return b.String(), rest[2:], true
	}
	if !strings.Contains(rest, "\r\n\r\n") {
		return b.String(), "", false // net/http reads trailers only after their final CRLF
	}
	_, after, ok = cutHeader(rest)
	return b.String(), after, ok
}

func isDigits(text string) bool {
	return text != "" && strings.Trim(text, "0123456789") == ""
}

// isToken reports whether text is a token (RFC 9110, section 5.6.2).
func isToken(text string) bool {
	const marks = "!#$%&'*+-.^_`|~"
	return text != "" && !strings.ContainsFunc(text, func(r rune) bool {
		return !(r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r < 0x80 && strings.ContainsRune(marks, r))
	})
}
