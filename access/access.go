// Package access imports the policies that control access: who may send requests, how
// many, and what the backend learns about the client. Each is a package of its own.
package access

import (
	_ "github.com/rgate/rgate/access/apikey"
	_ "github.com/rgate/rgate/access/cors"
	_ "github.com/rgate/rgate/access/ipfilter"
	_ "github.com/rgate/rgate/access/jwt"
	_ "github.com/rgate/rgate/access/ratelimit"
	_ "github.com/rgate/rgate/access/requestid"
	_ "github.com/rgate/rgate/access/require"
	_ "github.com/rgate/rgate/access/security"
)
