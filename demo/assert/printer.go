// Package assert prints the steps of a demo and counts its checks.
package assert

import (
	"fmt"
	"strings"
	"sync"
)

// Printer writes steps and checks to standard output and counts the checks. It is safe
// for concurrent use.
type Printer struct {
	mu                     sync.Mutex
	steps, checked, failed int
}

// Title prints the heading of a step.
func (p *Printer) Title(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.steps++
	fmt.Printf("\n%d. %s\n", p.steps, fmt.Sprintf(format, args...))
}

// Say prints a message. It may have several lines.
func (p *Printer) Say(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for line := range strings.Lines(strings.TrimRight(fmt.Sprintf(format, args...), " \r\n")) {
		fmt.Print("   " + line)
	}
	fmt.Println()
}

// Check prints the result of a check and counts it.
func (p *Printer) Check(passed bool, format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.checked++
	mark := "✓"
	if !passed {
		p.failed++
		mark = "✗ FAILED:"
	}
	fmt.Printf("   %s %s\n", mark, fmt.Sprintf(format, args...))
}

// Checked returns the number of checks so far.
func (p *Printer) Checked() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.checked
}

// Err returns an error if any check failed.
func (p *Printer) Err() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.failed == 0 {
		return nil
	}
	return fmt.Errorf("%d of %d checks failed: see above", p.failed, p.checked)
}
