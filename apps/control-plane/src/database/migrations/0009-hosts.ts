export const hosts = `
ALTER TABLE hosts
  ALTER COLUMN address DROP NOT NULL,
  ADD COLUMN type text NOT NULL DEFAULT 'regular' CHECK (type IN ('regular', 'byoc')),
  ADD COLUMN team_id text REFERENCES teams (id),
  ADD COLUMN provider text,
  ADD COLUMN availability_zone text,
  ADD COLUMN connection text NOT NULL DEFAULT 'inbound' CHECK (connection IN ('inbound', 'outbound')),
  ADD COLUMN arch text,
  ADD COLUMN cpu_count integer,
  ADD COLUMN memory_mb integer,
  ADD COLUMN memory_free_mb integer,
  ADD COLUMN disk_mb bigint,
  ADD COLUMN disk_free_mb bigint,
  ADD COLUMN hypervisor text,
  ADD COLUMN hypervisor_version text,
  ADD COLUMN accelerator text,
  ADD COLUMN kernel_version text,
  ADD COLUMN cpu text,
  ADD COLUMN object_store text,
  ADD COLUMN templates text[] NOT NULL DEFAULT '{}',
  ADD COLUMN cert_fingerprint text,
  ADD COLUMN cert_expires_at timestamptz,
  ADD COLUMN last_heartbeat_at timestamptz,
  ADD COLUMN cordoned_at timestamptz,
  ADD COLUMN drain_mode text CHECK (drain_mode IN ('pause', 'hibernate')),
  ADD COLUMN problem text,
  ADD COLUMN unknown_vms integer NOT NULL DEFAULT 0,
  ADD COLUMN boot_id text,
  ADD COLUMN past_boot_ids text[] NOT NULL DEFAULT '{}',
  ADD COLUMN heartbeat_sequence bigint,
  ADD COLUMN heartbeat_sent_at timestamptz,
  ADD COLUMN shared_at timestamptz,
  ADD COLUMN clock_offset_ms bigint,
  ADD COLUMN created_by text,
  ADD COLUMN updated_at timestamptz NOT NULL DEFAULT now(),
  ADD COLUMN deleted_at timestamptz,
  DROP CONSTRAINT hosts_address_key,
  ADD CHECK ((type = 'byoc') = (team_id IS NOT NULL));
CREATE UNIQUE INDEX hosts_address ON hosts (address) WHERE address IS NOT NULL AND deleted_at IS NULL;
CREATE FUNCTION announce_host() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF TG_OP = 'INSERT' OR (OLD.address, OLD.connection, OLD.cordoned_at, OLD.drain_mode, OLD.deleted_at)
    IS DISTINCT FROM (NEW.address, NEW.connection, NEW.cordoned_at, NEW.drain_mode, NEW.deleted_at)
  THEN
    PERFORM pg_notify('wrenn_hosts', NEW.id);
  END IF;
  RETURN NULL;
END $$;
CREATE TRIGGER hosts_announced AFTER INSERT OR UPDATE ON hosts FOR EACH ROW EXECUTE FUNCTION announce_host();
CREATE INDEX capsules_busy ON capsules (updated_at)
  WHERE status IN ('pending', 'starting', 'pausing', 'hibernating', 'resuming', 'forking', 'stopping');
CREATE INDEX hosts_team ON hosts (team_id) WHERE team_id IS NOT NULL;

CREATE TABLE host_tokens (
  id text PRIMARY KEY,
  host_id text NOT NULL REFERENCES hosts (id) ON DELETE CASCADE,
  created_by text,
  created_at timestamptz NOT NULL DEFAULT now(),
  expires_at timestamptz NOT NULL,
  used_at timestamptz,
  used_from text,
  used_key text,
  token_hash text NOT NULL UNIQUE
);
CREATE INDEX host_tokens_host ON host_tokens (host_id, created_at);

CREATE TABLE host_refresh_tokens (
  id text PRIMARY KEY,
  host_id text NOT NULL REFERENCES hosts (id) ON DELETE CASCADE,
  token_hash text NOT NULL UNIQUE,
  created_at timestamptz NOT NULL DEFAULT now(),
  expires_at timestamptz NOT NULL,
  revoked_at timestamptz,
  used_at timestamptz,
  reused_at timestamptz,
  cert_fingerprint text NOT NULL,
  cert_expires_at timestamptz NOT NULL
);
CREATE INDEX host_refresh_tokens_host ON host_refresh_tokens (host_id);

-- Templates in object stores, from where hosts that share one fetch them; of the platform's hosts, or of a team's.
CREATE TABLE published_templates (
  object_store text NOT NULL,
  arch text NOT NULL,
  name text NOT NULL,
  team_id text REFERENCES teams (id) ON DELETE CASCADE,
  object_key text NOT NULL,
  published_at timestamptz NOT NULL DEFAULT now(),
  UNIQUE NULLS NOT DISTINCT (name, object_store, arch, team_id)
);

ALTER TABLE snapshots
  ADD COLUMN object_key text,
  ADD COLUMN copies text[] NOT NULL DEFAULT '{}';

CREATE TABLE host_tags (
  host_id text NOT NULL REFERENCES hosts (id) ON DELETE CASCADE,
  tag text NOT NULL,
  PRIMARY KEY (host_id, tag)
);
CREATE INDEX host_tags_tag ON host_tags (tag);

ALTER TABLE capsules ADD COLUMN host_tags text[] NOT NULL DEFAULT '{}';

CREATE TABLE host_load (
  host_id text PRIMARY KEY REFERENCES hosts (id) ON DELETE CASCADE,
  running integer NOT NULL DEFAULT 0,
  vcpus integer NOT NULL DEFAULT 0,
  memory_mb bigint NOT NULL DEFAULT 0,
  disk_mb bigint NOT NULL DEFAULT 0,
  asleep integer NOT NULL DEFAULT 0,
  asleep_memory_mb bigint NOT NULL DEFAULT 0,
  asleep_disk_mb bigint NOT NULL DEFAULT 0
-- Rows that change all the time leave room for their next version beside them.
) WITH (fillfactor = 50);
CREATE TABLE team_load (
  team_id text PRIMARY KEY REFERENCES teams (id) ON DELETE CASCADE,
  running integer NOT NULL DEFAULT 0,
  vcpus integer NOT NULL DEFAULT 0,
  memory_mb bigint NOT NULL DEFAULT 0,
  asleep integer NOT NULL DEFAULT 0,
  asleep_half_memory_mb bigint NOT NULL DEFAULT 0,
  disk_mb bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 50);
ALTER TABLE hosts SET (fillfactor = 60);

-- Whether a capsule holds a machine's CPU and memory, or only disk, or nothing.
CREATE FUNCTION capsule_load_class(status text) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN
  CASE
    WHEN status IN ('pending', 'starting', 'running', 'pausing', 'resuming', 'forking', 'stopping', 'missing')
      THEN 'running'
    WHEN status IN ('paused', 'hibernating') THEN 'asleep'
    WHEN status = 'hibernated' THEN 'away'
    ELSE 'none'
  END;

-- Adds what a capsule holds, or takes it away, from its host and then from its team: whoever locks both does so in that
-- order.
CREATE FUNCTION count_host_load(c capsules, sign integer) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  class text := capsule_load_class(c.status);
  disk bigint := sign * coalesce(c.disk_mb, nullif(c.disk_request_mb, 0), 1024);
BEGIN
  IF class = 'running' THEN
    UPDATE host_load SET
      running = running + sign, vcpus = vcpus + sign * c.vcpus, memory_mb = memory_mb + sign * c.memory_mb,
      disk_mb = disk_mb + disk
    WHERE host_id = c.host_id;
  ELSIF class = 'asleep' THEN
    UPDATE host_load SET
      asleep = asleep + sign, asleep_memory_mb = asleep_memory_mb + sign * c.memory_mb,
      asleep_disk_mb = asleep_disk_mb + disk
    WHERE host_id = c.host_id;
  END IF;
END $$;

CREATE FUNCTION count_team_load(c capsules, sign integer) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  class text := capsule_load_class(c.status);
  disk bigint := sign * coalesce(c.disk_mb, nullif(c.disk_request_mb, 0), 1024);
BEGIN
  IF class = 'running' THEN
    UPDATE team_load SET
      running = running + sign, vcpus = vcpus + sign * c.vcpus, memory_mb = memory_mb + sign * c.memory_mb,
      disk_mb = disk_mb + disk
    WHERE team_id = c.team_id;
  ELSIF class <> 'none' THEN
    UPDATE team_load SET
      asleep = asleep + sign, asleep_half_memory_mb = asleep_half_memory_mb + sign * ((c.memory_mb + 1) / 2),
      disk_mb = disk_mb + disk
    WHERE team_id = c.team_id;
  END IF;
END $$;

CREATE FUNCTION follow_capsule_load() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF TG_OP = 'INSERT' THEN
    PERFORM count_host_load(NEW, 1);
    PERFORM count_team_load(NEW, 1);
  ELSIF TG_OP = 'DELETE' THEN
    PERFORM count_host_load(OLD, -1);
    PERFORM count_team_load(OLD, -1);
  ELSE
    -- Of two hosts the one with the lesser id first, so that two moves in opposite directions do not wait for each other.
    IF OLD.host_id <= NEW.host_id THEN
      PERFORM count_host_load(OLD, -1);
      PERFORM count_host_load(NEW, 1);
    ELSE
      PERFORM count_host_load(NEW, 1);
      PERFORM count_host_load(OLD, -1);
    END IF;
    PERFORM count_team_load(OLD, -1);
    PERFORM count_team_load(NEW, 1);
  END IF;
  RETURN NULL;
END $$;
CREATE TRIGGER capsules_load AFTER INSERT OR DELETE ON capsules
  FOR EACH ROW EXECUTE FUNCTION follow_capsule_load();
-- Most changes of a capsule change nothing of what it holds.
CREATE TRIGGER capsules_load_moved AFTER UPDATE ON capsules FOR EACH ROW
  WHEN (
    capsule_load_class(OLD.status) <> capsule_load_class(NEW.status)
    OR (OLD.host_id, OLD.team_id, OLD.vcpus, OLD.memory_mb, OLD.disk_mb, OLD.disk_request_mb)
      IS DISTINCT FROM (NEW.host_id, NEW.team_id, NEW.vcpus, NEW.memory_mb, NEW.disk_mb, NEW.disk_request_mb)
  )
  EXECUTE FUNCTION follow_capsule_load();

-- Every host and every team has its row, so that it can be locked before there is a capsule.
CREATE FUNCTION begin_host_load() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO host_load (host_id) VALUES (NEW.id);
  RETURN NULL;
END $$;
CREATE TRIGGER hosts_load AFTER INSERT ON hosts FOR EACH ROW EXECUTE FUNCTION begin_host_load();
CREATE FUNCTION begin_team_load() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO team_load (team_id) VALUES (NEW.id);
  RETURN NULL;
END $$;
CREATE TRIGGER teams_load AFTER INSERT ON teams FOR EACH ROW EXECUTE FUNCTION begin_team_load();
INSERT INTO host_load (host_id) SELECT id FROM hosts;
INSERT INTO team_load (team_id) SELECT id FROM teams;
DO $$
DECLARE c capsules;
BEGIN
  FOR c IN SELECT * FROM capsules LOOP
    PERFORM count_host_load(c, 1);
    PERFORM count_team_load(c, 1);
  END LOOP;
END $$;
`;
