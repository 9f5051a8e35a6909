package dockerupstreams

import (
	"cmp"
	"encoding/json"
	"errors"
	"slices"
	"strconv"
	"strings"

	"github.com/rgate/rgate/internal/options"
)

// Signal is the number of a signal on Linux. In a configuration, it is a name such as
// `SIGWINCH` or `WINCH`, or a number.
type Signal int

// The range of real-time signals.
const (
	signalMin Signal = 34
	signalMax Signal = 64
)

// signalNames holds the names of the signals 1 to 31 on Linux, without SIG.
var signalNames = [...]string{
	"", "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE", "ALRM", "TERM",
	"STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
}

// UnmarshalText parses a name or a number. The error describes valid values.
func (s *Signal) UnmarshalText(text []byte) error {
	name := strings.TrimPrefix(strings.ToUpper(strings.TrimSpace(string(text))), "SIG")
	number, err := strconv.Atoi(name)
	if err != nil {
		number = slices.Index(signalNames[:], name)
	}
	for prefix, base := range map[string]Signal{"RTMIN": signalMin, "RTMAX": signalMax} {
		if offset, ok := strings.CutPrefix(name, prefix); ok {
			n, err := strconv.Atoi(cmp.Or(offset, "0"))
			if number = int(base) + n; err != nil || Signal(number) < signalMin {
				number = 0
			}
		}
	}
	if number < 1 || number > int(signalMax) {
		return errors.New("a signal such as SIGWINCH, USR1 or 28")
	}
	*s = Signal(number)
	return nil
}

// UnmarshalJSON parses a name or a number. The error describes valid values.
func (s *Signal) UnmarshalJSON(data []byte) error {
	var text string
	if err := json.Unmarshal(data, &text); err != nil {
		text = string(data)
	}
	return s.UnmarshalText([]byte(text))
}

// MarshalText returns the name, or the number of a real-time signal.
func (s Signal) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// String returns the name, or the number of a real-time signal.
func (s Signal) String() string {
	if s > 0 && int(s) < len(signalNames) {
		return "SIG" + signalNames[s]
	}
	return strconv.Itoa(int(s))
}

// terminates reports whether a signal usually terminates a process. SIGHUP, SIGUSR1 and
// SIGUSR2 (1, 10, 12) usually reload a configuration or reopen logs. SIGWINCH (28) usually
// reports the new size of a terminal.
func terminates(signal Signal) bool {
	switch signal {
	case 0, 2, 3, 6, 9, 15, 37: // unknown, INT, QUIT, ABRT, KILL, TERM, RTMIN+3 (systemd: halt)
		return true
	default:
		return false
	}
}

// stopSignals parses the label rgate.stop_signals: signals, separated by commas. The
// error is a *labelError.
func stopSignals(labels map[string]string) (all []Signal, err error) {
	value, ok := labels[labelStopSignals]
	if !ok {
		return nil, nil
	}
	for text := range strings.SplitSeq(value, ",") {
		var signal Signal
		if err := signal.UnmarshalText([]byte(text)); err != nil {
			return nil, &labelError{labelStopSignals, value, "must be signals such as SIGWINCH, USR1 or 28, separated by commas"}
		}
		all = append(all, signal)
	}
	return all, nil
}

// stopOptions holds the options of an endpoint that determine when a container is being
// stopped, in comparable form.
type stopOptions struct {
	drain   options.Timeout
	signals string // names, separated by spaces
}

// has reports whether a signal is one of the additional signals.
func (o stopOptions) has(signal Signal) bool {
	return slices.Contains(strings.Fields(o.signals), signal.String())
}

// stopOptions returns the options of e that determine when a container is being stopped.
func (e Endpoint) stopOptions() stopOptions {
	names := make([]string, len(e.StopSignals))
	for i, signal := range e.StopSignals {
		names[i] = signal.String()
	}
	slices.Sort(names)
	return stopOptions{e.Drain, strings.Join(slices.Compact(names), " ")}
}
