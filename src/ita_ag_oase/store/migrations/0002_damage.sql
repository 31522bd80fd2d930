-- CRC-32 of the bytes of a piece, by which a disk that changes them is found out. Null: written before there was one.
ALTER TABLE pieces ADD COLUMN checksum INTEGER;

-- The ledger's place for events that a damaged file held and that could not be read any more:
-- new = waiting + parked + delivered + already_saved + dropped + lost.
ALTER TABLE settings ADD COLUMN lost INTEGER NOT NULL DEFAULT 0;
