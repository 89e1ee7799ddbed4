-- The span store, schema version 1. Every column is explained in docs/reference/store-schema.md.
-- A segment is what one batch brought of one trace from one resource. Segments are only ever
-- appended, so a batch touches the right edge of each table and one index on random keys.

CREATE TABLE traces (
    id          INTEGER PRIMARY KEY AUTOINCREMENT, -- order of arrival; never used twice
    trace_id    BLOB    NOT NULL UNIQUE,           -- 16 bytes
    start_ns    INTEGER NOT NULL,                  -- earliest start of its spans
    end_ns      INTEGER,                           -- latest end; NULL while none has ended
    name        TEXT    NOT NULL,                  -- of the span nearest to the root
    service     TEXT    NOT NULL,                  -- of the same span
    kind        INTEGER NOT NULL,
    status      INTEGER NOT NULL,
    root_id     BLOB    NOT NULL,                  -- 8 bytes, the same span
    root_rank   INTEGER NOT NULL,                  -- 3 root, 2 remote parent, 1 local parent
    root_start  INTEGER NOT NULL,
    span_count  INTEGER NOT NULL,                  -- ended spans
    error_count INTEGER NOT NULL,
    stored_s    INTEGER NOT NULL,                  -- when its last segment arrived, Unix seconds
    removed     INTEGER NOT NULL DEFAULT 0,        -- spans that retention took out of it
    pinned      INTEGER NOT NULL DEFAULT 0,
    note        TEXT    NOT NULL DEFAULT ''
);
CREATE INDEX traces_by_start ON traces (start_ns);

CREATE TABLE segments (
    id              INTEGER PRIMARY KEY AUTOINCREMENT,
    trace           INTEGER NOT NULL,              -- traces.id
    resource        INTEGER NOT NULL,              -- resources.id
    start_ns        INTEGER NOT NULL,
    end_ns          INTEGER NOT NULL,
    max_duration_ns INTEGER NOT NULL,
    span_count      INTEGER NOT NULL,
    error_count     INTEGER NOT NULL,
    terms           BLOB    NOT NULL               -- 4 bytes for each distinct name and attribute
);
CREATE INDEX segments_by_trace ON segments (trace);

CREATE TABLE payloads (
    id         INTEGER PRIMARY KEY,                -- segments.id
    span_ids   BLOB NOT NULL,                      -- 8 bytes, big-endian, for each span
    names      TEXT NOT NULL,                      -- JSON [[name, kind], ...]
    operations BLOB NOT NULL,                      -- uint16 each: 2 * index in names + error
    durations  BLOB NOT NULL,                      -- int64 each, nanoseconds, little-endian
    spans      TEXT NOT NULL                       -- JSON [[span_id, parent_id, ...], ...]
);

CREATE TABLE started (
    id       INTEGER PRIMARY KEY AUTOINCREMENT,
    trace    INTEGER NOT NULL,                     -- traces.id
    span_id  BLOB    NOT NULL,
    resource INTEGER NOT NULL,
    process  TEXT    NOT NULL,                     -- who will end it
    span     TEXT    NOT NULL,                     -- JSON, as one element of payloads.spans
    UNIQUE (trace, span_id)
);

-- The ids of these two are 48 bits of a hash of the contents: every process finds the same one.
CREATE TABLE resources (
    id         INTEGER PRIMARY KEY,
    service    TEXT NOT NULL,
    schema_url TEXT NOT NULL,
    attributes TEXT NOT NULL                       -- JSON
);
CREATE TABLE scopes (
    id         INTEGER PRIMARY KEY,
    name       TEXT NOT NULL,
    version    TEXT,
    schema_url TEXT NOT NULL,
    attributes TEXT NOT NULL                       -- JSON
);

-- For people with a SQL prompt: one row a span.
CREATE VIEW spans AS
SELECT lower(hex(traces.trace_id))                 AS trace_id,
       json_extract(row.value, '$[0]')             AS span_id,
       json_extract(row.value, '$[1]')             AS parent_id,
       json_extract(row.value, '$[3]')             AS name,
       CASE json_extract(row.value, '$[4]')
           WHEN 0 THEN 'INTERNAL' WHEN 1 THEN 'SERVER' WHEN 2 THEN 'CLIENT'
           WHEN 3 THEN 'PRODUCER' ELSE 'CONSUMER' END AS kind,
       json_extract(row.value, '$[5]')             AS start_ns,
       json_extract(row.value, '$[6]')             AS duration_ns,
       CASE json_extract(row.value, '$[7]')
           WHEN 0 THEN 'UNSET' WHEN 1 THEN 'OK' ELSE 'ERROR' END AS status,
       resources.service                           AS service,
       scopes.name                                 AS scope,
       json_extract(row.value, '$[9]')             AS attributes,
       json_extract(row.value, '$[10].events')     AS events,
       json_extract(row.value, '$[10].links')      AS links
  FROM traces
  JOIN segments ON segments.trace = traces.id
  JOIN payloads ON payloads.id = segments.id
  JOIN json_each(payloads.spans) AS row
  LEFT JOIN resources ON resources.id = segments.resource
  LEFT JOIN scopes ON scopes.id = json_extract(row.value, '$[8]');
