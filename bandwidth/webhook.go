package bandwidth

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

// hook delivers messages to an address by HTTP. It does not change once it is made.
// The address may have a secret in it, and is not to be shown.
type hook struct {
	url     string
	header  http.Header
	timeout time.Duration
}

// host is what may be shown of the address.
func (h *hook) host() string {
	u, err := url.Parse(h.url)
	if err != nil {
		return ""
	}
	return u.Host
}

// post sends a message. If it is to be sent again, but not before some time, it
// returns that.
func (h *hook) post(ctx context.Context, id string, body []byte) (wait time.Duration, err error) {
	ctx, cancel := context.WithTimeout(ctx, h.timeout)
	defer cancel()
	step := "webhook " + h.host()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, h.url, bytes.NewReader(body))
	if err != nil {
		return 0, &stepError{step, errors.New("its address cannot be used"), true}
	}
	request.Header = h.header.Clone()
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("User-Agent", "rgate")
	request.Header.Set("Idempotency-Key", id)
	client := http.Client{
		// One message in a while: there is no use for the connection afterwards.
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
	said, _ := io.ReadAll(io.LimitReader(response.Body, 200)) // only to be shown
	if response.StatusCode/100 == 2 {
		return 0, nil
	}
	if seconds, err := strconv.ParseUint(response.Header.Get("Retry-After"), 10, 31); err == nil {
		wait = min(time.Duration(seconds)*time.Second, lastRetry)
	}
	return wait, &stepError{step, fmt.Errorf("it answers %s: %q", response.Status, said), hopeless(response.StatusCode)}
}

// hopeless reports whether a status will not be another one when the same is sent
// again.
func hopeless(status int) bool {
	switch status {
	case http.StatusRequestTimeout, http.StatusTooEarly, http.StatusTooManyRequests:
		return false
	}
	return status < 500
}
