package integration

import (
	"os/exec"
	"syscall"
)

// dieWithTests makes a process end if the tests are aborted, and can no longer end
// it themselves.
func dieWithTests(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}
