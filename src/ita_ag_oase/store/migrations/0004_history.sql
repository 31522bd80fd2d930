-- When the poll started that saw an id first, and which number the event has among all new ones of the setting.
-- Null: seen before this was noted, or taken over from the stock agent.
ALTER TABLE ids ADD COLUMN first_poll INTEGER;
ALTER TABLE ids ADD COLUMN event_number INTEGER;

-- How often a group was offered, when, and what Exastro answered last. The `first_event` of a group made from now on is
-- the number of its first event among all new ones of the setting.
ALTER TABLE groups ADD COLUMN offers INTEGER NOT NULL DEFAULT 0;
ALTER TABLE groups ADD COLUMN first_offer INTEGER;
ALTER TABLE groups ADD COLUMN latest_offer INTEGER;
ALTER TABLE groups ADD COLUMN answer TEXT;

-- What became of groups: how they left the outbox, or went on in it under another key or in parts.
CREATE TABLE history (
    number INTEGER PRIMARY KEY,
    setting INTEGER NOT NULL,
    agent_name TEXT NOT NULL,
    key INTEGER,
    fetched_time INTEGER NOT NULL,
    first_event INTEGER NOT NULL,
    event_count INTEGER NOT NULL,
    offers INTEGER NOT NULL,
    first_offer INTEGER,
    latest_offer INTEGER,
    ended INTEGER NOT NULL,
    outcome TEXT NOT NULL,
    answer TEXT
);
