// Command rgate is the stand-alone gateway: Caddy with its standard modules and the
// modules of rgate.
package main

import (
	"os"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	_ "github.com/caddyserver/caddy/v2/modules/standard"

	_ "github.com/rgate/rgate"
	"github.com/rgate/rgate/cli"
)

func main() {
	os.Args = cli.StandAlone(os.Args)
	caddycmd.Main()
}
