-- The spool, schema version 1: requests that could not be sent, in the order in which they came.

CREATE TABLE requests (
    id          INTEGER PRIMARY KEY AUTOINCREMENT, -- order of arrival; never used twice
    destination TEXT    NOT NULL,                  -- format, address, and a digest of the rest
    spans       INTEGER NOT NULL,                  -- how many are in the body
    bytes       INTEGER NOT NULL,                  -- of the body as it is kept
    kept_s      REAL    NOT NULL,                  -- when, Unix seconds
    process     TEXT    NOT NULL,                  -- whose spans they are
    sending     INTEGER NOT NULL DEFAULT 0,        -- 1: under way, not to be dropped for room
    headers     TEXT    NOT NULL,                  -- JSON [[name, value], ...] of this request alone
    body        BLOB    NOT NULL                   -- zlib
);
CREATE INDEX requests_by_destination ON requests (destination, id);
