-- Accounts with their limits, the keys of each, and what was used.
CREATE TABLE account (
    name TEXT PRIMARY KEY, created REAL NOT NULL, expires REAL, admin INTEGER NOT NULL,
    priority TEXT NOT NULL, models TEXT, rpm INTEGER, tpm INTEGER, concurrency INTEGER,
    budget_tokens INTEGER, budget_period TEXT
) WITHOUT ROWID;
CREATE TABLE secret (
    prefix TEXT PRIMARY KEY, account TEXT NOT NULL REFERENCES account ON DELETE CASCADE,
    salt BLOB NOT NULL, digest BLOB NOT NULL, created REAL NOT NULL, expires REAL
) WITHOUT ROWID;
CREATE TABLE usage (
    hour INTEGER NOT NULL, key TEXT NOT NULL, model TEXT NOT NULL,
    requests INTEGER NOT NULL, errors INTEGER NOT NULL, estimated INTEGER NOT NULL,
    prompt_tokens INTEGER NOT NULL, cached_tokens INTEGER NOT NULL,
    completion_tokens INTEGER NOT NULL, audio_seconds REAL NOT NULL,
    compute_seconds REAL NOT NULL,
    PRIMARY KEY (hour, key, model)
) WITHOUT ROWID;
