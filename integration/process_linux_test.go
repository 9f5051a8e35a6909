package integration

import (
	"os/exec"
	"syscall"
)

// dieWithTests sets Pdeathsig, so that the process is killed when the test process dies.
func dieWithTests(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}
