package notify

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// hook delivers messages to a URL. The URL may contain a secret and must not be
// displayed. A hook is immutable.
type hook struct {
	url     string
	header  http.Header
	timeout time.Duration
}

// host returns the host of the URL, which is safe to display.
func (h *hook) host() string {
	u, err := url.Parse(h.url)
	if err != nil {
		return ""
	}
	return u.Host
}

// post sends a message. If an error response has Retry-After in seconds, wait is its
// value, at most lastRetry.
func (h *hook) post(ctx context.Context, id string, body []byte) (wait time.Duration, err error) {
	ctx, cancel := context.WithTimeout(ctx, h.timeout)
	defer cancel()
	step := "webhook " + h.host()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, h.url, bytes.NewReader(body))
	if err != nil {
		return 0, &stepError{step, errors.New("invalid url"), true}
	}
	request.Header = h.header.Clone()
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("User-Agent", "rgate")
	request.Header.Set("Idempotency-Key", id)
	client := http.Client{
		// Messages are rare: do not keep the connection open.
		Transport:     &http.Transport{Proxy: http.ProxyFromEnvironment, DisableKeepAlives: true, ForceAttemptHTTP2: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	response, err := client.Do(request)
	if err != nil {
		var withAddress *url.Error
		if errors.As(err, &withAddress) {
			err = withAddress.Err
		}
		return 0, &stepError{step, err, false}
	}
	defer response.Body.Close()
	excerpt, _ := io.ReadAll(io.LimitReader(response.Body, 200)) // only displayed
	if response.StatusCode/100 == 2 {
		return 0, nil
	}
	if seconds, err := strconv.ParseUint(response.Header.Get("Retry-After"), 10, 31); err == nil {
		wait = min(time.Duration(seconds)*time.Second, lastRetry)
	}
	return wait, &stepError{step, fmt.Errorf("unexpected response status %s: %q", response.Status, excerpt), isPermanentStatus(response.StatusCode)}
}

// isPermanentStatus reports whether retrying after a status is useless.
func isPermanentStatus(status int) bool {
	switch status {
	case http.StatusRequestTimeout, http.StatusTooEarly, http.StatusTooManyRequests:
		return false
	}
	return status < 500
}
