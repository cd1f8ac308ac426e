-- The tables of pict-rs 0.5's PostgreSQL repository, in the columns that matter here. Times have no zone and are UTC.
CREATE TABLE hashes (
    hash text PRIMARY KEY, -- base64 of SHA-256, size and format
    identifier text NOT NULL UNIQUE,
    motion_identifier text UNIQUE,
    created_at timestamp NOT NULL DEFAULT CURRENT_TIMESTAMP,
    blurhash text
);
CREATE INDEX ordered_hash_index ON hashes (created_at, hash);
CREATE TABLE variants (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    hash text NOT NULL REFERENCES hashes (hash),
    variant text NOT NULL,
    identifier text NOT NULL,
    accessed timestamp NOT NULL DEFAULT CURRENT_TIMESTAMP
);
CREATE UNIQUE INDEX hash_variant_index ON variants (hash, variant);
CREATE TABLE aliases (
    alias text PRIMARY KEY,
    hash text NOT NULL REFERENCES hashes (hash),
    token text NOT NULL
);
CREATE INDEX aliases_hash_index ON aliases (hash);
CREATE TABLE details (identifier text PRIMARY KEY, json jsonb NOT NULL);
CREATE TABLE proxies (
    url text PRIMARY KEY,
    alias text NOT NULL REFERENCES aliases (alias),
    accessed timestamp NOT NULL DEFAULT CURRENT_TIMESTAMP
);
