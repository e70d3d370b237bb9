export const sleep = `
ALTER TABLE capsules
  ADD COLUMN generation integer NOT NULL DEFAULT 0 CHECK (generation >= 0),
  ADD COLUMN slept_at timestamptz,
  ADD COLUMN snapshot_bytes bigint,
  ADD COLUMN snapshot_problem text,
  ADD COLUMN object_key text,
  ADD COLUMN memory_discarded boolean NOT NULL DEFAULT false,
  ADD COLUMN on_timeout text NOT NULL DEFAULT 'pause' CHECK (on_timeout IN ('pause', 'destroy')),
  ADD COLUMN auto_resume boolean NOT NULL DEFAULT false,
  ADD COLUMN deadline_at timestamptz,
  ADD COLUMN snapshot_id text,
  ADD COLUMN forked_from text,
  ADD COLUMN trace jsonb;
CREATE INDEX capsules_deadline ON capsules (deadline_at) WHERE deadline_at IS NOT NULL;

CREATE TABLE snapshots (
  id text PRIMARY KEY,
  team_id text NOT NULL REFERENCES teams (id),
  host_id text NOT NULL REFERENCES hosts (id),
  name text NOT NULL,
  status text NOT NULL CHECK (status IN ('making', 'ready', 'deleting')),
  template text NOT NULL,
  capsule_id text NOT NULL,
  vcpus integer NOT NULL,
  memory_mb integer NOT NULL,
  disk_mb integer NOT NULL,
  envs jsonb NOT NULL,
  size_bytes bigint,
  created_at timestamptz NOT NULL DEFAULT now()
);
CREATE UNIQUE INDEX snapshots_name ON snapshots (team_id, name);

CREATE TABLE object_deletions (
  object_key text PRIMARY KEY,
  created_at timestamptz NOT NULL DEFAULT now()
);

ALTER TABLE operations
  DROP CONSTRAINT operations_kind_check,
  ADD CONSTRAINT operations_kind_check CHECK (kind IN (
    'capsule.create', 'capsule.destroy', 'capsule.pause', 'capsule.resume', 'capsule.fork', 'capsule.snapshot',
    'capsule.hibernate'
  )),
  ADD COLUMN args jsonb NOT NULL DEFAULT '{}',
  ADD COLUMN result jsonb;
CREATE INDEX operations_finished ON operations (finished_at) WHERE finished_at IS NOT NULL;
`;
