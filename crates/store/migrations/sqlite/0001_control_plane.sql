-- Times are Unix seconds unless a name says otherwise; JSON is text.
-- `seq` is the order in which records came; `layout` the names of a document's fields in their
-- order; `more` its fields that have no column.

CREATE TABLE meta (
    name TEXT NOT NULL PRIMARY KEY,
    value BIGINT NOT NULL
);
INSERT INTO meta (name, value) VALUES ('revision', 0);

CREATE TABLE channels (
    seq INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    name TEXT,
    platform TEXT,
    base_url TEXT,
    api_key TEXT,
    status TEXT,
    layout TEXT NOT NULL,
    more TEXT,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    revision BIGINT NOT NULL
);
CREATE INDEX channels_revision ON channels (revision);
CREATE INDEX channels_name ON channels (name COLLATE NOCASE);
CREATE INDEX channels_platform ON channels (platform);

CREATE TABLE user_groups (
    seq INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    name TEXT,
    notes TEXT,
    layout TEXT NOT NULL,
    more TEXT,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    revision BIGINT NOT NULL
);
CREATE INDEX user_groups_revision ON user_groups (revision);
CREATE INDEX user_groups_name ON user_groups (name COLLATE NOCASE);

CREATE TABLE users (
    seq INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    name TEXT,
    department TEXT,
    email TEXT,
    phone TEXT,
    employee_number TEXT,
    notes TEXT,
    status TEXT,
    layout TEXT NOT NULL,
    more TEXT,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    revision BIGINT NOT NULL
);
CREATE INDEX users_revision ON users (revision);
CREATE INDEX users_name ON users (name COLLATE NOCASE);
CREATE INDEX users_department ON users (department COLLATE NOCASE);
CREATE INDEX users_email ON users (email COLLATE NOCASE);
CREATE INDEX users_phone ON users (phone COLLATE NOCASE);
CREATE INDEX users_employee_number ON users (employee_number COLLATE NOCASE);
CREATE INDEX users_created_at ON users (created_at);
CREATE INDEX users_updated_at ON users (updated_at);

CREATE TABLE proxy_keys (
    seq INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    user_id TEXT REFERENCES users (id),
    name TEXT,
    sha256 TEXT,
    prefix TEXT,
    status TEXT,
    retires_at TEXT,
    layout TEXT NOT NULL,
    more TEXT,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    revision BIGINT NOT NULL
);
-- Hexadecimal digits mean the same in any case.
CREATE UNIQUE INDEX proxy_keys_sha256 ON proxy_keys (lower(sha256));
CREATE INDEX proxy_keys_user ON proxy_keys (user_id);
CREATE INDEX proxy_keys_revision ON proxy_keys (revision);
CREATE INDEX proxy_keys_name ON proxy_keys (name COLLATE NOCASE);
CREATE INDEX proxy_keys_created_at ON proxy_keys (created_at);
CREATE INDEX proxy_keys_updated_at ON proxy_keys (updated_at);

-- A user's `groups`, in order.
CREATE TABLE memberships (
    user_id TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    position BIGINT NOT NULL,
    group_id TEXT NOT NULL,
    PRIMARY KEY (user_id, position)
) WITHOUT ROWID;
CREATE INDEX memberships_group ON memberships (group_id, user_id);

-- The `channels` of users and groups, in order. `item` is an entry that says more than these columns hold.
CREATE TABLE mapping (
    subject_kind TEXT NOT NULL,
    subject TEXT NOT NULL,
    position BIGINT NOT NULL,
    channel TEXT NOT NULL,
    priority BIGINT,
    weight BIGINT,
    item TEXT,
    PRIMARY KEY (subject_kind, subject, position)
) WITHOUT ROWID;
CREATE INDEX mapping_channel ON mapping (channel, subject_kind, subject);

-- What narrows users, groups and keys; lists as JSON.
CREATE TABLE permissions (
    subject_kind TEXT NOT NULL,
    subject TEXT NOT NULL,
    channels TEXT,
    models TEXT,
    endpoints TEXT,
    allow_ips TEXT,
    valid_from TEXT,
    expires_at TEXT,
    PRIMARY KEY (subject_kind, subject)
) WITHOUT ROWID;
CREATE INDEX permissions_expires_at ON permissions (expires_at);

-- What was deleted, and with which revision.
CREATE TABLE tombstones (
    kind TEXT NOT NULL,
    id TEXT NOT NULL,
    revision BIGINT NOT NULL,
    PRIMARY KEY (kind, id)
) WITHOUT ROWID;
CREATE INDEX tombstones_revision ON tombstones (revision);

CREATE TABLE denials (
    subject_kind TEXT NOT NULL,
    subject TEXT NOT NULL,
    reason TEXT NOT NULL,
    denied_by TEXT NOT NULL,
    denied_at BIGINT NOT NULL,
    PRIMARY KEY (subject_kind, subject)
) WITHOUT ROWID;

CREATE TABLE key_use (
    key_id TEXT NOT NULL PRIMARY KEY,
    used_at BIGINT NOT NULL
) WITHOUT ROWID;

-- `name_key` is the name in lower case: names are compared without case.
CREATE TABLE administrators (
    id TEXT NOT NULL PRIMARY KEY,
    name TEXT NOT NULL,
    name_key TEXT NOT NULL UNIQUE,
    display_name TEXT NOT NULL,
    role TEXT NOT NULL,
    password_hash TEXT NOT NULL,
    status TEXT NOT NULL,
    must_change BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    last_login_at BIGINT,
    revision BIGINT NOT NULL
);

CREATE TABLE admin_tokens (
    id TEXT NOT NULL PRIMARY KEY,
    name TEXT NOT NULL,
    sha256 BLOB NOT NULL UNIQUE,
    prefix TEXT NOT NULL,
    role TEXT NOT NULL,
    scopes TEXT NOT NULL,
    created_by TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    expires_at BIGINT,
    last_used_at BIGINT,
    revoked_at BIGINT
);

CREATE TABLE sessions (
    sha256 BLOB NOT NULL PRIMARY KEY,
    administrator TEXT NOT NULL REFERENCES administrators (id) ON DELETE CASCADE,
    csrf BLOB NOT NULL,
    created_at BIGINT NOT NULL,
    seen_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    address TEXT NOT NULL,
    agent TEXT NOT NULL
);
CREATE INDEX sessions_administrator ON sessions (administrator);
CREATE INDEX sessions_expires_at ON sessions (expires_at);

CREATE TABLE lockouts (
    subject TEXT NOT NULL PRIMARY KEY,
    failures BIGINT NOT NULL,
    until BIGINT NOT NULL,
    failed_at BIGINT NOT NULL
);

-- AUTOINCREMENT: the id of a record that was pruned is never given again.
CREATE TABLE audit (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    at_ms BIGINT NOT NULL,
    actor_kind TEXT NOT NULL,
    actor_id TEXT NOT NULL,
    actor_name TEXT NOT NULL,
    from_address TEXT NOT NULL,
    request_id TEXT NOT NULL,
    action TEXT NOT NULL,
    object_kind TEXT NOT NULL,
    object_id TEXT NOT NULL,
    outcome TEXT NOT NULL,
    value_before TEXT,
    value_after TEXT,
    detail TEXT
);
CREATE INDEX audit_at ON audit (at_ms);
CREATE INDEX audit_actor_id ON audit (actor_id);
CREATE INDEX audit_actor_name ON audit (actor_name);
CREATE INDEX audit_action ON audit (action);
CREATE INDEX audit_object ON audit (object_kind, object_id);
CREATE INDEX audit_outcome ON audit (outcome);

CREATE TABLE settings (
    name TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
);

CREATE TABLE idempotency (
    actor TEXT NOT NULL,
    request_key TEXT NOT NULL,
    fingerprint BLOB NOT NULL,
    status BIGINT NOT NULL,
    body TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (actor, request_key)
);
CREATE INDEX idempotency_created_at ON idempotency (created_at);
