-- Records, and what they are found by. Tags (16 bytes) are keyed hashes, `sealed` is ciphertext; only
-- numbers and times are in clear. Times are milliseconds since the Unix epoch.

-- An ordinary rowid table: bodies are appended, and only small index entries land in random places.
CREATE TABLE record (
    namespace INTEGER NOT NULL,
    kind      INTEGER NOT NULL,
    name      BLOB    NOT NULL,
    parent    BLOB    NOT NULL,
    rev       INTEGER NOT NULL,
    due_at    INTEGER,
    term      INTEGER NOT NULL,
    -- The tags of this row in `label`, one after the other.
    labels    BLOB    NOT NULL,
    sealed    BLOB    NOT NULL,
    PRIMARY KEY (namespace, kind, name)
) STRICT;

CREATE INDEX record_parent ON record (namespace, kind, parent, name);
-- Not only of rows that have a due time: this small index also answers "how many rows of this kind".
CREATE INDEX record_due ON record (kind, due_at);
CREATE INDEX record_term ON record (term);

CREATE TABLE label (
    namespace INTEGER NOT NULL,
    kind      INTEGER NOT NULL,
    tag       BLOB    NOT NULL,
    name      BLOB    NOT NULL,
    PRIMARY KEY (namespace, kind, tag, name)
) STRICT, WITHOUT ROWID;

CREATE TABLE meta (
    name  TEXT PRIMARY KEY,
    value BLOB NOT NULL
) STRICT, WITHOUT ROWID;

-- One row, raised by every group of commits in the transaction that it counts.
CREATE TABLE sequence (
    id    INTEGER PRIMARY KEY CHECK (id = 1),
    value INTEGER NOT NULL
) STRICT;
INSERT INTO sequence (id, value) VALUES (1, 0);
