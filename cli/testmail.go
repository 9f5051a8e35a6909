package cli

import (
	"context"
	"fmt"
	"os"
	"os/signal"

	"github.com/spf13/cobra"

	"github.com/rgate/rgate/bandwidth"
)

// testMailCommand returns the command that sends a test message.
func testMailCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "test-mail [-c <file>]",
		Short: "Sends a test message with the settings of the quota notifications",
		Long: `Sends a test message by each channel of 'notify' in the configuration, mail and
		webhook, and reports each step. No gateway has to run.`,
		Args: noArgs,
	}
	file := configFlagOf(cmd)
	cmd.RunE = withPlainErrors(func() error { return testMail(*file) })
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
