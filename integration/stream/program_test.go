package stream

import (
	"fmt"
	"strings"
)

// The parts that requests of a stream are composed of.
var (
	methods = []string{"GET", "POST", "HEAD", "PUT", "DELETE", "OPTIONS", "BREW", "CONNECT"}
	paths   = []string{"/open", "/key", "/get", "/small", "/none", "/early", "/keep", "/die", "/open/../key", "/open#x", "*", "http://a.example/open"}
	extras  = []string{
		"", "Connection: close\r\n", "Connection: keep-alive\r\n", "Expect: 100-continue\r\n", "Upgrade: websocket\r\nConnection: Upgrade\r\n",
		"Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n", "Trailer: X-Sum\r\n", "X-A: b\r\n c\r\n",
		"Transfer-Encoding: identity\r\n", "Content-Length: 3\r\n", "X-API-Key: topsecret\r\n", "Expect: 100-continue\r\nConnection: close\r\n",
		"Connection: Content-Length, Transfer-Encoding\r\n", "TE: trailers\r\n", "Transfer_Encoding: chunked\r\n", "X A: b\r\n",
	}
	versions = []string{"HTTP/1.1", "HTTP/1.0", "HTTP/1.2", "HTTP/2.0"}
	sizes    = []int{0, 1, 41, 410, 1025, 4096, 20_000, 300_000}
	ends     = []string{"0\r\n\r\n", "0\r\nX-Sum: 1\r\n\r\n", "0\r\n", "", "5\r\nhelloXX\r\n0\r\n\r\n", "xyz\r\n\r\n", "0\n\n", "0;a=b\r\n\r\n"}
)

// inner is the content of bodies. It is parsed as a request if the framing is misread.
const inner = "GET /open/inner HTTP/1.1\r\nHost: inner\r\n\r\n"

// interpret composes a stream of requests from the fuzzer's input, whose bytes select the
// parts. After 255, the next byte is the length of literal bytes to append. After 254, it
// is the number of bytes to remove from the end.
func interpret(program []byte) string {
	const maxStream = 1 << 20
	next := func() int {
		if len(program) == 0 {
			return 0
		}
		value := program[0]
		program = program[1:]
		return int(value)
	}
	var b strings.Builder
	for number := 0; len(program) > 0 && b.Len() < maxStream && number < 12; number++ {
		switch op := next(); op {
		case 255:
			length := min(next(), len(program))
			b.Write(program[:length])
			program = program[length:]
		case 254:
			text := b.String()
			b.Reset()
			b.WriteString(text[:max(0, len(text)-next())])
		default:
			choice := next()
			method, path := methods[op%len(methods)], paths[choice%len(paths)]
			target := path
			if strings.Contains(path, "/") && !strings.Contains(path, "#") {
				target += fmt.Sprintf("/%d", number)
			}
			details := next()
			fmt.Fprintf(&b, "%s %s %s\r\nHost: a.example\r\n%s", method, target, versions[max(0, details>>4-12)], extras[details%len(extras)])
			framing := next()
			body := strings.Repeat(inner, sizes[framing%len(sizes)]/len(inner)+1)[:sizes[framing%len(sizes)]]
			switch framing >> 3 % 4 {
			case 0:
				b.WriteString("\r\n")
			case 1:
				fmt.Fprintf(&b, "Content-Length: %d\r\n\r\n%s", len(body), body)
			default:
				b.WriteString("Transfer-Encoding: chunked\r\n\r\n")
				for step := max(1, len(body)/(1+framing>>5)); body != ""; {
					chunk := body[:min(len(body), step)]
					body = body[len(chunk):]
					fmt.Fprintf(&b, "%x\r\n%s\r\n", len(chunk), chunk)
				}
				b.WriteString(ends[next()%len(ends)])
			}
		}
	}
	return b.String()
}
