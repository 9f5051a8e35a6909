-- What bytes and requests are told apart by, once each, so that the rows of a minute
-- are short. An empty consumer is the account of everybody's bytes.
CREATE TABLE series (
	id {{serial}},
	gateway TEXT NOT NULL,
	service TEXT NOT NULL,
	route TEXT NOT NULL,
	consumer TEXT NOT NULL,
	UNIQUE (gateway, service, route, consumer)
);

-- Bytes by minute, hour and day. All three are added to in the same transaction, so
-- that each is exact by itself. Times are seconds since 1970, UTC, of the beginning.
CREATE TABLE bytes_minute (
	at BIGINT NOT NULL,
	series BIGINT NOT NULL,
	ingress BIGINT NOT NULL,
	egress BIGINT NOT NULL,
	ingress_headers BIGINT NOT NULL,
	egress_headers BIGINT NOT NULL,
	PRIMARY KEY (at, series)
){{clustered}};

CREATE TABLE bytes_hour (
	at BIGINT NOT NULL,
	series BIGINT NOT NULL,
	ingress BIGINT NOT NULL,
	egress BIGINT NOT NULL,
	ingress_headers BIGINT NOT NULL,
	egress_headers BIGINT NOT NULL,
	PRIMARY KEY (at, series)
){{clustered}};

CREATE TABLE bytes_day (
	at BIGINT NOT NULL,
	series BIGINT NOT NULL,
	ingress BIGINT NOT NULL,
	egress BIGINT NOT NULL,
	ingress_headers BIGINT NOT NULL,
	egress_headers BIGINT NOT NULL,
	PRIMARY KEY (at, series)
){{clustered}};

-- For people and their tools: the same with names.
CREATE VIEW bandwidth_minute AS
	SELECT b.at, s.gateway, s.service, s.route, s.consumer, b.ingress, b.egress, b.ingress_headers, b.egress_headers
	FROM bytes_minute b JOIN series s ON s.id = b.series;

CREATE VIEW bandwidth_hour AS
	SELECT b.at, s.gateway, s.service, s.route, s.consumer, b.ingress, b.egress, b.ingress_headers, b.egress_headers
	FROM bytes_hour b JOIN series s ON s.id = b.series;

CREATE VIEW bandwidth_day AS
	SELECT b.at, s.gateway, s.service, s.route, s.consumer, b.ingress, b.egress, b.ingress_headers, b.egress_headers
	FROM bytes_day b JOIN series s ON s.id = b.series;

-- The last batch that each writer has written: one that is sent again after a COMMIT
-- whose answer was lost is not added twice.
CREATE TABLE flushes (
	writer TEXT PRIMARY KEY,
	seq BIGINT NOT NULL,
	at BIGINT NOT NULL
){{clustered}};

-- What only one gateway of those that share the database does. Expiry is in
-- milliseconds since 1970.
CREATE TABLE leases (
	name TEXT PRIMARY KEY,
	holder TEXT NOT NULL,
	expires BIGINT NOT NULL
){{clustered}};

-- Rows before these times may have been deleted from a table.
CREATE TABLE pruned (
	name TEXT PRIMARY KEY,
	before BIGINT NOT NULL
){{clustered}};

-- Times at which somebody's sum begins, and when a gateway last said so: what a sum
-- from there on needs is kept.
CREATE TABLE marks (
	at BIGINT PRIMARY KEY,
	seen BIGINT NOT NULL
){{clustered}};
