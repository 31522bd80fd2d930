-- How far a source that hands over portions was read, in its own words; null before its first portion.
ALTER TABLE settings ADD COLUMN position TEXT;
