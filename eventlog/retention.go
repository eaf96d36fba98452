package eventlog

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/campanile-push/campanile/schemas"
)

// AtRisk counts, for each group and topic, the partitions in which the group has left something unread for more than half of the
// time after which the cluster deletes it, whoever has read it: retention.ms as the topic has it now, which an operator may have
// changed. Topics that are compacted or keep everything are never at risk; retention.bytes is not looked at, since nobody knows
// when it strikes. A group without offsets has read nothing.
func (l *Log) AtRisk(ctx context.Context, now time.Time) (map[string]map[schemas.Topic]int, error) {
	specs := map[string]schemas.Spec{}
	var names []string
	for _, spec := range schemas.Specs() {
		if spec.Cleanup != schemas.Compacted && len(spec.Groups) > 0 {
			name := l.name(spec.Topic)
			names = append(names, name)
			specs[name] = spec
		}
	}
	settings, err := l.settings(ctx, names)
	if err != nil {
		return nil, err
	}
	risk := map[string]map[schemas.Topic]int{}
	for _, name := range names {
		kept, err := strconv.ParseInt(settings[name]["retention.ms"], 10, 64)
		if err != nil || kept <= 0 {
			continue
		}
		half := time.Duration(kept) * time.Millisecond / 2
		old, err := listed(l.admin.ListOffsetsAfterMilli(ctx, now.Add(-half).UnixMilli(), name))
		if err != nil {
			return nil, fmt.Errorf("read what is half way to its deletion in %s: %w", name, err)
		}
		starts, err := listed(l.admin.ListStartOffsets(ctx, name))
		if err != nil {
			return nil, fmt.Errorf("read where %s starts: %w", name, err)
		}
		for _, group := range specs[name].Groups {
			committed, err := l.committed(ctx, group, []string{name})
			if err != nil {
				return nil, err
			}
			late := 0
			for p, o := range old[name] {
				at := starts[name][p].Offset
				if c, ok := committed.Lookup(name, p); ok {
					at = max(at, c.At)
				}
				if at < o.Offset {
					late++
				}
			}
			if late > 0 {
				if risk[group] == nil {
					risk[group] = map[schemas.Topic]int{}
				}
				risk[group][specs[name].Topic] = late
			}
		}
	}
	return risk, nil
}
