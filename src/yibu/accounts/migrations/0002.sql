-- An account's share of a model whose requests wait.
ALTER TABLE account ADD COLUMN weight INTEGER NOT NULL DEFAULT 1;
