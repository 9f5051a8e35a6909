-- How requests went. The sketch is the distribution of their durations in seconds
-- (DDSketch, encoded with its mapping).
CREATE TABLE answers_minute (
	at BIGINT NOT NULL,
	series BIGINT NOT NULL,
	requests BIGINT NOT NULL,
	errors BIGINT NOT NULL,
	seconds DOUBLE PRECISION NOT NULL,
	sketch {{blob}},
	PRIMARY KEY (at, series)
){{clustered}};

CREATE TABLE answers_hour (
	at BIGINT NOT NULL,
	series BIGINT NOT NULL,
	requests BIGINT NOT NULL,
	errors BIGINT NOT NULL,
	seconds DOUBLE PRECISION NOT NULL,
	sketch {{blob}},
	PRIMARY KEY (at, series)
){{clustered}};

CREATE TABLE answers_day (
	at BIGINT NOT NULL,
	series BIGINT NOT NULL,
	requests BIGINT NOT NULL,
	errors BIGINT NOT NULL,
	seconds DOUBLE PRECISION NOT NULL,
	sketch {{blob}},
	PRIMARY KEY (at, series)
){{clustered}};

CREATE VIEW requests_minute AS
	SELECT a.at, s.gateway, s.service, s.route, a.requests, a.errors, a.seconds, a.sketch
	FROM answers_minute a JOIN series s ON s.id = a.series;

CREATE VIEW requests_hour AS
	SELECT a.at, s.gateway, s.service, s.route, a.requests, a.errors, a.seconds, a.sketch
	FROM answers_hour a JOIN series s ON s.id = a.series;

CREATE VIEW requests_day AS
	SELECT a.at, s.gateway, s.service, s.route, a.requests, a.errors, a.seconds, a.sketch
	FROM answers_day a JOIN series s ON s.id = a.series;
