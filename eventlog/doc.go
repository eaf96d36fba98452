// Package eventlog is the only room that knows Kafka (franz-go): it appends events, runs the stages that read them, follows
// topics into memory, and looks after topics and groups. Handlers see schemas.Batch, schemas.Out and schemas.Completion, and
// never a client.
package eventlog
