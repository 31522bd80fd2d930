-- One row per event collection setting ever seen.
CREATE TABLE settings (
    number INTEGER PRIMARY KEY,
    id TEXT UNIQUE,
    name TEXT NOT NULL,
    last_fetched_time INTEGER NOT NULL,
    -- The greatest key ever given to a group, and the greatest one that is done with: keys only grow.
    last_key INTEGER NOT NULL,
    settled_key INTEGER NOT NULL DEFAULT 0,
    -- The agent name under which Exastro has saved a group of this setting from this store: its progress is known.
    saved_as TEXT,
    last_event BLOB,
    -- Digests of the unusable events of the last poll, joined.
    unusable BLOB NOT NULL DEFAULT x'',
    -- The ledger: seen = new + known + repeated, and new = waiting + parked + delivered + already_saved + dropped.
    seen INTEGER NOT NULL DEFAULT 0,
    new INTEGER NOT NULL DEFAULT 0,
    known INTEGER NOT NULL DEFAULT 0,
    repeated INTEGER NOT NULL DEFAULT 0,
    delivered INTEGER NOT NULL DEFAULT 0,
    already_saved INTEGER NOT NULL DEFAULT 0,
    dropped INTEGER NOT NULL DEFAULT 0
);

-- Events on their way, in the order (poll, first_event).
CREATE TABLE groups (
    number INTEGER PRIMARY KEY,
    setting INTEGER NOT NULL REFERENCES settings (number),
    poll INTEGER NOT NULL,
    first_event INTEGER NOT NULL,
    agent_name TEXT NOT NULL,
    -- The fetched_time Exastro is told; null for the later part of a group that was cut, until its turn comes.
    key INTEGER,
    -- For a part of a group that was cut: the key of the whole.
    cut_key INTEGER,
    -- Part of the request whose fate is not known yet.
    in_request INTEGER NOT NULL DEFAULT 0,
    -- Some earlier request with these events may have been saved.
    maybe_saved INTEGER NOT NULL DEFAULT 0,
    parked_reason TEXT,
    parked_time INTEGER,
    event_count INTEGER NOT NULL,
    byte_count INTEGER NOT NULL
);
CREATE INDEX groups_waiting ON groups (poll, first_event) WHERE parked_reason IS NULL;
CREATE INDEX groups_of_setting ON groups (setting, poll, first_event) WHERE parked_reason IS NULL;
CREATE INDEX groups_in_request ON groups (in_request) WHERE in_request = 1;

-- The events of the groups as the JSON they are sent as, joined by commas, in pieces that are small enough to pass
-- through memory one by one. The pieces of a group follow each other by id.
CREATE TABLE pieces (
    id INTEGER PRIMARY KEY,
    group_number INTEGER NOT NULL,
    event_count INTEGER NOT NULL,
    events BLOB NOT NULL
);
CREATE INDEX pieces_of_group ON pieces (group_number);

-- Digests of event ids that were seen, with the last time a response held them.
CREATE TABLE ids (
    setting INTEGER NOT NULL,
    digest BLOB NOT NULL,
    last_seen INTEGER NOT NULL,
    PRIMARY KEY (setting, digest)
) WITHOUT ROWID;

CREATE TABLE facts (
    name TEXT PRIMARY KEY,
    value BLOB NOT NULL
) WITHOUT ROWID;
