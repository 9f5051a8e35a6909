// Package promise is what the demos tell a person: what happens, and whether what was
// promised is kept.
package promise

import (
	"fmt"
	"strings"
	"sync"
)

// Printer writes to the standard output, and keeps count of promises. It is safe for
// concurrent use: lines stay whole.
type Printer struct {
	mu                     sync.Mutex
	steps, checked, broken int
}

// Title begins a step.
func (p *Printer) Title(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.steps++
	fmt.Printf("\n%d. %s\n", p.steps, fmt.Sprintf(format, args...))
}

// Say tells something, which may have several lines.
func (p *Printer) Say(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for line := range strings.Lines(strings.TrimRight(fmt.Sprintf(format, args...), " \r\n")) {
		fmt.Print("   " + line)
	}
	fmt.Println()
}

// Check tells whether a promise was kept.
func (p *Printer) Check(kept bool, format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.checked++
	mark := "✓"
	if !kept {
		p.broken++
		mark = "✗ NOT AS PROMISED:"
	}
	fmt.Printf("   %s %s\n", mark, fmt.Sprintf(format, args...))
}

// Checked is how many promises there were.
func (p *Printer) Checked() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.checked
}

// Err is an error if one was not kept.
func (p *Printer) Err() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.broken == 0 {
		return nil
	}
	return fmt.Errorf("%d of %d promises were not kept: see above", p.broken, p.checked)
}
