package cli

import (
	"context"
	"fmt"
	"os"
	"os/signal"

	"github.com/spf13/cobra"

	"github.com/rgate/rgate/bandwidth"
)

// testMailCommand makes the command that sends a test message.
func testMailCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "test-mail [-c <file>]",
		Short: "Sends a test message as the configuration sends those about quotas",
		Long: `Sends a test message in each of the ways that 'notify' in the configuration names,
by mail and to a webhook, and reports each step. No gateway has to run.`,
		Args: noArgs,
	}
	file := configFlagOf(cmd)
	cmd.RunE = plainly(func() error { return testMail(*file) })
	return cmd
}

func testMail(file string) error {
	config, err := load(file)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := bandwidth.SendTest(ctx, config, os.Stdout); err != nil {
		return err
	}
	_, err = fmt.Println("The test message has been sent.")
	return err
}
