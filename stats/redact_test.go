package stats

import "testing"

func TestRedact(t *testing.T) {
	c := new(redactedParams)
	c.add([]string{"q", "My Name"})
	c.add([]string{"partner"}) // parameter of another configuration
	for url, want := range map[string]string{
		"/a/b":                         "/a/b",
		"/a?b=c&d":                     "/a?b=c&d",
		"/a?access_token=s3cret&b=c":   "/a?access_token=REDACTED&b=c",
		"/a?X-Amz-Signature=abc":       "/a?X-Amz-Signature=REDACTED",
		"/a?API_KEY=abc&password=":     "/a?API_KEY=REDACTED&password=",
		"/a?tok%65n=abc":               "/a?tok%65n=REDACTED",
		"/a?b=token&session_id=1?2=&c": "/a?b=token&session_id=REDACTED&c",

		"/a?q=secret&query=b":                  "/a?q=REDACTED&query=b",
		"/a?Q=secret;tail&my+name=x&partner=7": "/a?Q=REDACTED&my+name=REDACTED&partner=REDACTED",
		"/a?bearer=x&user_pw=x&otp=x":          "/a?bearer=REDACTED&user_pw=REDACTED&otp=REDACTED",
		"/a?b=c;token=x;d=e&f;g=h":             "/a?b=c;token=REDACTED&f;g=h",
		"/a?q=;secret&b=;c":                    "/a?q=REDACTED&b=;c",

		// A nested URL.
		"/a?next=/b?token=x&c=d":                            "/a?next=/b?token=REDACTED&c=d",
		"/a?next=%2Fb%3Fc%3Dd%26token%3Dx&c=d":              "/a?next=%2Fb%3Fc%3Dd%26token%3DREDACTED&c=d",
		"/a?next=https://b/%23access_token%3Dx":             "/a?next=https%3A%2F%2Fb%2F%23access_token%3DREDACTED",
		"/a?next=%2Fb%3Fq%3Dx%25":                           "/a?next=%2Fb%3Fq%3DREDACTED",
		"/a?next=%2Fb%3Fnext%3D%252Fc%253Fq%253Dx":          "/a?next=%2Fb%3Fnext%3D%252Fc%253Fq%253DREDACTED",
		"/a?next=%2Fb%3Fc%3Dd&text=100%&x=%zz":              "/a?next=%2Fb%3Fc%3Dd&text=100%&x=%zz",
		"/a?next=%2Fb%3Fq%3Dx;next=%2Fb%3Fq%3Dx;c=d;pw=x;e": "/a?next=%2Fb%3Fq%3DREDACTED;next=%2Fb%3Fq%3DREDACTED;c=d;pw=REDACTED",
	} {
		if got := c.redact(url); got != want {
			t.Errorf("%s: got %s, want %s", url, got, want)
		}
	}
}
