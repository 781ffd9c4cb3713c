-- Records, and what they are found by. Tags (16 bytes) are keyed hashes, `sealed` is ciphertext; only
-- numbers and times are in clear. Times are milliseconds since the Unix epoch.

-- Rows are updated in place often (claims, renewals): room in each page keeps that off the indexes.
CREATE TABLE record (
    namespace     bigint  NOT NULL,
    kind          integer NOT NULL,
    name          bytea   NOT NULL,
    parent        bytea   NOT NULL,
    rev           bigint  NOT NULL,
    due_at        bigint,
    -- The node that works on this row, and until when no other may.
    claimed_by    bigint,
    claimed_until bigint,
    term          bigint  NOT NULL,
    -- The tags of this row in `label`, one after the other.
    labels        bytea   NOT NULL,
    sealed        bytea   NOT NULL,
    PRIMARY KEY (namespace, kind, name)
) WITH (fillfactor = 90);
-- Ciphertext does not compress.
ALTER TABLE record ALTER COLUMN sealed SET STORAGE EXTERNAL;

CREATE INDEX record_parent ON record (namespace, kind, parent, name);
-- Not only of rows that have a due time: this small index also answers "how many rows of this kind".
CREATE INDEX record_due ON record (kind, due_at);
CREATE INDEX record_term ON record (term);

CREATE TABLE label (
    namespace bigint  NOT NULL,
    kind      integer NOT NULL,
    tag       bytea   NOT NULL,
    name      bytea   NOT NULL,
    PRIMARY KEY (namespace, kind, tag, name)
);

CREATE TABLE meta (
    name  text PRIMARY KEY,
    value bytea NOT NULL
);

-- Raised by every commit. Not transactional, which is why it never makes commits wait for each other.
CREATE SEQUENCE commit_sequence;
