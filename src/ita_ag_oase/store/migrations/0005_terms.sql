-- Who may write: one row, none before the first term. The number only grows. `holder` is the agent at work, `guard` what
-- made it that besides the lock on the file beside the store: empty for nothing, else a Lease as namespace/name.
CREATE TABLE terms (
    number INTEGER PRIMARY KEY,
    holder TEXT NOT NULL,
    guard TEXT NOT NULL,
    begun INTEGER NOT NULL
);
