package cockroach

// What PostgreSQL alone is told, and CockroachDB has no word for: crdbcheck does not parse it.
const (
	sqlVacuum = `VACUUM (ANALYZE) devices, subscriptions, audience` //nolint:misspell // the server's word
)
