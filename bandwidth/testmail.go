package bandwidth

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"

	"github.com/caddyserver/caddy/v2"

	"github.com/rgate/rgate/bandwidth/notify"
)

// SendTest sends a test message through each channel of a Caddy JSON configuration. It
// writes each successful step to out. The returned error is the first failure, with a
// remedy if one is known.
func SendTest(ctx context.Context, config []byte, out io.Writer) error {
	var tree any
	if err := json.Unmarshal(config, &tree); err != nil {
		return fmt.Errorf("reading the configuration: %w", err)
	}
	var all []*Notify
	if err := findNotify(tree, &all); err != nil {
		return err
	}
	if len(all) == 0 {
		return errors.New("notify is required for a test message: add notify with smtp or webhook to the configuration")
	}
	var failed error
	for _, p := range all {
		if err := p.sendTest(ctx, out); failed == nil {
			failed = err
		}
	}
	return failed
}

// findNotify appends the enabled rgate_notify handlers of a configuration to all.
func findNotify(tree any, all *[]*Notify) error {
	switch tree := tree.(type) {
	case []any:
		for _, inner := range tree {
			if err := findNotify(inner, all); err != nil {
				return err
			}
		}
	case map[string]any:
		if tree["handler"] == "rgate_notify" {
			delete(tree, "handler")
			p := new(Notify)
			raw, err := json.Marshal(tree)
			if err == nil {
				err = caddy.StrictUnmarshalJSON(raw, p)
			}
			if err != nil {
				return fmt.Errorf("reading notify: %w", err)
			}
			if !p.Off() {
				*all = append(*all, p)
			}
			return nil
		}
		for _, key := range slices.Sorted(maps.Keys(tree)) {
			if err := findNotify(tree[key], all); err != nil {
				return err
			}
		}
	}
	return nil
}

func (p *Notify) sendTest(ctx context.Context, out io.Writer) error {
	if err := p.Check(); err != nil {
		return err
	}
	channels, err := notify.Open(p.SMTP, p.Webhook, p.Link)
	if err != nil {
		return err
	}
	return channels.SendTest(ctx, out)
}
