-- What tells the messages of one database from those of others.
CREATE TABLE quota_origin (
	one BIGINT PRIMARY KEY,
	id  TEXT NOT NULL
);

-- Which thresholds have been reached. Whoever of several gateways adds the row of one
-- has it told; nobody can add it twice.
CREATE TABLE quota_events (
	quota      TEXT   NOT NULL,
	consumer   TEXT   NOT NULL, -- empty if the allocation is one for all together
	starts_at  BIGINT NOT NULL, -- the period
	direction  TEXT   NOT NULL,
	threshold  BIGINT NOT NULL, -- percent
	ends_at    BIGINT NOT NULL,
	crossed_at BIGINT NOT NULL,
	message    TEXT   NOT NULL, -- that tells it, in the outbox
	PRIMARY KEY (quota, consumer, starts_at, direction, threshold)
);
CREATE INDEX quota_events_ends_at ON quota_events (ends_at);

-- Messages, for each of the ways in which they go. They are written before they are
-- sent.
CREATE TABLE outbox (
	message      TEXT   NOT NULL,
	channel      TEXT   NOT NULL, -- mail, webhook
	notice       TEXT   NOT NULL, -- JSON
	created_at   BIGINT NOT NULL,
	state        TEXT   NOT NULL, -- pending, sent, failed
	attempts     BIGINT NOT NULL,
	attempted_at BIGINT NOT NULL,
	next_at      BIGINT NOT NULL, -- not to be tried before
	leased_until BIGINT NOT NULL, -- until then, it is one gateway's
	leased_by    TEXT   NOT NULL,
	delivered    TEXT   NOT NULL, -- JSON: who has it already
	error        TEXT   NOT NULL, -- of the last attempt
	PRIMARY KEY (message, channel)
);
CREATE INDEX outbox_state ON outbox (state, next_at);
CREATE INDEX outbox_attempted_at ON outbox (attempted_at);
