-- CRC-32 of the bytes of a piece, by which a disk that changes them is found out. Null: written before there was one.
ALTER TABLE pieces ADD COLUMN checksum INTEGER;

-- The ledger's place for events that a damaged file held and that could not be read any more:
-- new = waiting + parked + delivered + already_saved + dropped + lost.
ALTER TABLE settings ADD COLUMN lost INTEGER NOT NULL DEFAULT 0;

-- When the poll of a group started; its key may run ahead of that.
ALTER TABLE groups ADD COLUMN fetched_time INTEGER NOT NULL DEFAULT 0;
UPDATE groups SET fetched_time = coalesce(key, cut_key, 0);

-- Up to the poll of this time, at least, everything of a setting is done with.
ALTER TABLE settings ADD COLUMN settled_time INTEGER NOT NULL DEFAULT 0;
