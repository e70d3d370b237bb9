export const usage = `
CREATE EXTENSION IF NOT EXISTS btree_gist;

-- The time that the ledger goes by. Simulations set wrenn.now.
CREATE FUNCTION wrenn_now() RETURNS timestamptz LANGUAGE sql VOLATILE RETURN
  coalesce(nullif(current_setting('wrenn.now', true), '')::timestamptz, clock_timestamp());

CREATE TABLE usage_intervals (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  capsule_id text NOT NULL,
  team_id text NOT NULL,
  labels jsonb NOT NULL,
  state text NOT NULL CHECK (state IN ('running', 'asleep')),
  vcpus integer NOT NULL,
  memory_mb integer NOT NULL,
  disk_mb integer NOT NULL,
  started_at timestamptz NOT NULL,
  ended_at timestamptz,
  CHECK (ended_at IS NULL OR ended_at > started_at),
  CONSTRAINT usage_intervals_no_overlap
    EXCLUDE USING gist (capsule_id WITH =, tstzrange(started_at, ended_at) WITH &&)
);
CREATE UNIQUE INDEX usage_intervals_open ON usage_intervals (capsule_id) WHERE ended_at IS NULL;
CREATE INDEX usage_intervals_capsule ON usage_intervals (capsule_id, started_at);
CREATE INDEX usage_intervals_team ON usage_intervals (team_id, ended_at);
CREATE INDEX usage_intervals_ended ON usage_intervals (ended_at);

CREATE TABLE daily_usage (
  team_id text NOT NULL,
  day date NOT NULL,
  capsule_id text NOT NULL,
  labels jsonb NOT NULL,
  -- Labels may be too long for an index.
  labels_md5 text NOT NULL GENERATED ALWAYS AS (md5(labels::text)) STORED,
  vcpu_us numeric NOT NULL,
  memory_mb_us numeric NOT NULL,
  disk_mb_us numeric NOT NULL,
  PRIMARY KEY (team_id, day, capsule_id, labels_md5)
);
CREATE INDEX daily_usage_day ON daily_usage (day);
-- Always all days from the first of the ledger on to the last one here.
CREATE TABLE rolled_up_days (
  day date PRIMARY KEY,
  rolled_up_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE capsule_egress (
  capsule_id text NOT NULL,
  team_id text NOT NULL,
  day date NOT NULL,
  bytes bigint NOT NULL,
  PRIMARY KEY (capsule_id, day)
);
CREATE INDEX capsule_egress_team ON capsule_egress (team_id, day);

CREATE TABLE pools (
  team_id text PRIMARY KEY REFERENCES teams (id) ON DELETE CASCADE,
  vcpus integer,
  memory_mb bigint,
  disk_mb bigint,
  updated_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE budgets (
  team_id text PRIMARY KEY REFERENCES teams (id) ON DELETE CASCADE,
  monthly numeric NOT NULL,
  warn_at_pct integer NOT NULL,
  on_exceeded text NOT NULL CHECK (on_exceeded IN ('warn', 'sleep')),
  warned_month date,
  exceeded_month date,
  updated_at timestamptz NOT NULL DEFAULT now()
);

-- What a capsule is billed as. Not what it reserves: nobody pays for a start that has not come to its end, for a host
-- that is silent, or for an end that was asked for.
CREATE FUNCTION capsule_usage_state(status text) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN
  CASE
    WHEN status IN ('running', 'pausing', 'forking') THEN 'running'
    WHEN status IN ('paused', 'hibernating', 'hibernated', 'resuming') THEN 'asleep'
  END;

CREATE FUNCTION capsule_billed_disk_mb(c capsules) RETURNS integer LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN
  coalesce(c.disk_mb, nullif(c.disk_request_mb, 0), 1024);

CREATE FUNCTION follow_capsule_usage() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  before text := CASE WHEN TG_OP <> 'INSERT' THEN capsule_usage_state(OLD.status) END;
  after text := CASE WHEN TG_OP <> 'DELETE' THEN capsule_usage_state(NEW.status) END;
  open usage_intervals;
  at timestamptz;
BEGIN
  IF before IS NULL AND after IS NULL THEN
    RETURN NULL;
  END IF;
  IF before = after AND TG_OP = 'UPDATE'
    AND (OLD.team_id, OLD.vcpus, OLD.memory_mb, capsule_billed_disk_mb(OLD), OLD.labels)
      IS NOT DISTINCT FROM (NEW.team_id, NEW.vcpus, NEW.memory_mb, capsule_billed_disk_mb(NEW), NEW.labels)
  THEN
    RETURN NULL;
  END IF;
  -- Never into a day that is rolled up, nor before the last change, whatever the clock does.
  SELECT greatest(wrenn_now(), (max(day) + 1)::timestamp AT TIME ZONE 'UTC') INTO at FROM rolled_up_days;
  IF before IS NOT NULL THEN
    SELECT * INTO open FROM usage_intervals WHERE capsule_id = OLD.id AND ended_at IS NULL;
    at := greatest(at, open.started_at);
    IF at > open.started_at THEN
      UPDATE usage_intervals SET ended_at = at WHERE id = open.id;
    ELSE
      DELETE FROM usage_intervals WHERE id = open.id;
    END IF;
  ELSE
    SELECT greatest(at, ended_at) INTO at FROM (SELECT NEW.id) AS one(id)
      LEFT JOIN usage_intervals ON capsule_id = one.id ORDER BY started_at DESC LIMIT 1;
  END IF;
  IF after IS NOT NULL THEN
    INSERT INTO usage_intervals (capsule_id, team_id, labels, state, vcpus, memory_mb, disk_mb, started_at)
    VALUES (NEW.id, NEW.team_id, NEW.labels, after, NEW.vcpus, NEW.memory_mb, capsule_billed_disk_mb(NEW), at);
  END IF;
  RETURN NULL;
END $$;
CREATE TRIGGER capsules_usage
  AFTER INSERT OR DELETE OR UPDATE OF status, team_id, vcpus, memory_mb, disk_mb, disk_request_mb, labels ON capsules
  FOR EACH ROW EXECUTE FUNCTION follow_capsule_usage();

INSERT INTO usage_intervals (capsule_id, team_id, labels, state, vcpus, memory_mb, disk_mb, started_at)
SELECT c.id, c.team_id, c.labels, capsule_usage_state(c.status), c.vcpus, c.memory_mb, capsule_billed_disk_mb(c),
  wrenn_now()
FROM capsules c WHERE capsule_usage_state(c.status) IS NOT NULL;
`;
