package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/campanile-push/campanile/eventlog"
	"github.com/campanile-push/campanile/router"
	"github.com/campanile-push/campanile/schemas"
)

func topicsCommand(t *terminal) *cobra.Command {
	cmd := &cobra.Command{Use: "topics", Short: "Plan, create and look at the topics and consumer groups"}
	cmd.AddCommand(
		topicsPlanCommand(t, "plan", "Print what has to be created or changed in the cluster, for whoever has the rights", false),
		topicsPlanCommand(t, "apply", "Create and change what `plan` prints", true),
		topicsGroupsCommand(t), topicsResetCommand(t), topicsForgetCommand(t), asJob(topicsCopyCommand(t)),
	)
	return cmd
}

func topicsPlanCommand(t *terminal, name, short string, apply bool) *cobra.Command {
	return &cobra.Command{
		Use: name, Short: short, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, _, err := t.setup(cmd)
			if err != nil {
				return err
			}
			return t.withLog(cmd, func(ctx context.Context, log *eventlog.Log, _ *secrets) error {
				plans, err := log.PlanTopics(ctx, partitions(c))
				if err != nil {
					return err
				}
				var rows [][]string
				for _, p := range plans {
					rows = append(rows, []string{string(p.Action), p.Name, strconv.Itoa(int(p.Partitions)), replicas(p.Replication), joinConfigs(p.Configs)})
				}
				if err := printTable(t.out, "ACTION\tTOPIC\tPARTITIONS\tREPLICAS\tSETTINGS", rows); err != nil {
					return err
				}
				if !apply {
					return nil
				}
				return log.ApplyTopics(ctx, plans)
			})
		},
	}
}

func replicas(n int16) string {
	if n < 1 {
		return "default"
	}
	return strconv.Itoa(int(n))
}

func joinConfigs(configs map[string]string) string {
	var pairs []string
	for _, k := range slices.Sorted(maps.Keys(configs)) {
		pairs = append(pairs, k+"="+configs[k])
	}
	return strings.Join(pairs, " ")
}

func topicsGroupsCommand(t *terminal) *cobra.Command {
	return &cobra.Command{
		Use: "groups", Short: "List each consumer group's lag by topic", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return t.withLog(cmd, func(ctx context.Context, log *eventlog.Log, _ *secrets) error {
				var rows [][]string
				for _, group := range eventlog.Groups() {
					offsets, err := log.GroupOffsets(ctx, group)
					if err != nil {
						return err
					}
					for _, topic := range eventlog.GroupTopics(group) {
						var lag int64
						without := 0
						for _, o := range offsets {
							if o.Topic != topic {
								continue
							}
							lag += o.Lag()
							if o.Committed < 0 {
								without++
							}
						}
						note := ""
						if without > 0 {
							note = fmt.Sprintf("%d partitions without an offset: campanile topics reset %s", without, group)
						}
						rows = append(rows, []string{group, string(topic), strconv.FormatInt(lag, 10), note})
					}
				}
				return printTable(t.out, "GROUP\tTOPIC\tLAG\tNOTE", rows)
			})
		},
	}
}

func topicsResetCommand(t *terminal) *cobra.Command {
	var to string
	cmd := &cobra.Command{
		Use: "reset GROUP", Short: "Give a group that lost its offsets a place to go on from; stop its members first", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			places := map[string]eventlog.ResetTo{"missing": eventlog.ResetMissing, "earliest": eventlog.ResetEarliest, "latest": eventlog.ResetLatest}
			place, ok := places[to]
			if !ok {
				return fmt.Errorf("--to %q: want missing, earliest or latest", to)
			}
			return t.withLog(cmd, func(ctx context.Context, log *eventlog.Log, _ *secrets) error {
				done, err := resetGroup(ctx, log, args[0], place)
				if err != nil {
					return err
				}
				var rows [][]string
				for _, o := range done {
					rows = append(rows, []string{string(o.Topic), strconv.Itoa(int(o.Partition)), strconv.FormatInt(o.Committed, 10)})
				}
				return printTable(t.out, "TOPIC\tPARTITION\tGOES ON AT", rows)
			})
		},
	}
	cmd.Flags().StringVar(&to, "to", "missing", "missing: where there is no valid offset, the first record that is there, which the stages know "+
		"whether they have handled, and for "+schemas.GroupDirectRouter+" the first notification that is not routed yet; earliest: the first record everywhere, "+
		"handling records again; latest: the end, never reading what lies between")
	return cmd
}

// resetGroup is Log.ResetGroup, but for the direct router: at the first record that is there it would send a week of notifications again,
// so it goes on where its own output ends.
func resetGroup(ctx context.Context, log *eventlog.Log, group string, to eventlog.ResetTo) ([]eventlog.GroupOffset, error) {
	if group != schemas.GroupDirectRouter || to != eventlog.ResetMissing {
		return log.ResetGroup(ctx, group, to)
	}
	resume := router.NewResume()
	for _, topic := range router.ResumeTopics() {
		if err := replay(ctx, log, "reset."+string(topic), resume.Answered, topic); err != nil {
			return nil, err
		}
	}
	if err := replay(ctx, log, "reset."+string(schemas.Notifications), resume.Asked, schemas.Notifications); err != nil {
		return nil, err
	}
	return log.ResetGroupAt(ctx, group, func(o eventlog.GroupOffset) (int64, bool) {
		place, ok := resume.Place(o.Partition)
		if !ok {
			return o.Start, o.Lost()
		}
		return max(place.Offset, o.Start), o.Lost()
	})
}

func topicsForgetCommand(t *terminal) *cobra.Command {
	return &cobra.Command{
		Use: "forget GROUP", Short: "Delete a group that no process is in, so that it holds no deletion back", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return t.withLog(cmd, func(ctx context.Context, log *eventlog.Log, _ *secrets) error {
				return log.ForgetGroup(ctx, args[0])
			})
		},
	}
}
