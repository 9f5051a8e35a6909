-- Other gateways whose counters are read: since when they are asked, when they last
-- answered and when they say that they began, in seconds since 1970, and how many
-- answers have been recorded. An answer is recorded in one transaction with the bytes
-- that it adds, and only upon the one before it: nothing is added twice.
CREATE TABLE sources (
	name TEXT PRIMARY KEY,
	since BIGINT NOT NULL,
	scraped BIGINT NOT NULL,
	started DOUBLE PRECISION NOT NULL,
	number BIGINT NOT NULL
){{clustered}};

-- Where their counters were then. The series is a digest of its name and labels.
CREATE TABLE source_counters (
	source TEXT NOT NULL,
	series TEXT NOT NULL,
	bytes BIGINT NOT NULL,
	PRIMARY KEY (source, series)
){{clustered}};
