package caddyfile

// The selection policies that golden files name.
import _ "github.com/rgate/rgate/balance"
