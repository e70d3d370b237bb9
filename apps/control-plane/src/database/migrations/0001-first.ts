export const first = `
CREATE TABLE teams (
  id text PRIMARY KEY,
  name text NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE api_keys (
  id text PRIMARY KEY,
  team_id text NOT NULL REFERENCES teams (id) ON DELETE CASCADE,
  name text NOT NULL,
  key_hash text NOT NULL UNIQUE,
  key_prefix text NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX api_keys_team ON api_keys (team_id);

CREATE TABLE hosts (
  id text PRIMARY KEY,
  address text NOT NULL UNIQUE,
  status text NOT NULL CHECK (status IN ('pending', 'online', 'unreachable', 'draining', 'deleted')),
  agent_version text,
  last_seen_at timestamptz,
  created_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE capsules (
  id text PRIMARY KEY,
  team_id text NOT NULL REFERENCES teams (id),
  host_id text NOT NULL REFERENCES hosts (id),
  template text NOT NULL,
  status text NOT NULL CHECK (status IN (
    'pending', 'starting', 'running', 'pausing', 'paused', 'hibernating', 'hibernated', 'resuming', 'forking',
    'stopping', 'stopped', 'missing', 'error'
  )),
  version integer NOT NULL DEFAULT 1,
  status_reason text,
  vcpus integer NOT NULL CHECK (vcpus > 0),
  memory_mb integer NOT NULL CHECK (memory_mb > 0),
  disk_request_mb integer NOT NULL CHECK (disk_request_mb >= 0),
  disk_mb integer,
  timeout_sec integer NOT NULL CHECK (timeout_sec >= 0),
  envs jsonb NOT NULL,
  labels jsonb NOT NULL,
  versions jsonb NOT NULL,
  guest_ip text,
  host_ip text,
  access_token text NOT NULL,
  console_tail bytea,
  created_at timestamptz NOT NULL DEFAULT now(),
  started_at timestamptz,
  last_active_at timestamptz,
  updated_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX capsules_team ON capsules (team_id, created_at DESC, id DESC);
CREATE INDEX capsules_host ON capsules (host_id) WHERE status <> 'stopped';
CREATE INDEX capsules_idle ON capsules (last_active_at) WHERE status = 'running' AND timeout_sec > 0;

CREATE TABLE operations (
  id text PRIMARY KEY,
  team_id text NOT NULL REFERENCES teams (id),
  capsule_id text NOT NULL REFERENCES capsules (id) ON DELETE CASCADE,
  kind text NOT NULL CHECK (kind IN ('capsule.create', 'capsule.destroy')),
  actor text NOT NULL,
  idempotency_key text,
  request_hash text,
  state text NOT NULL CHECK (state IN ('running', 'succeeded', 'failed')),
  step text NOT NULL,
  error jsonb,
  owner bigint NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now(),
  finished_at timestamptz,
  CHECK ((state = 'running') = (finished_at IS NULL))
);
CREATE UNIQUE INDEX operations_idempotency ON operations (team_id, kind, idempotency_key);
CREATE INDEX operations_capsule ON operations (capsule_id, created_at);
CREATE INDEX operations_running ON operations (owner) WHERE state = 'running';
`;
