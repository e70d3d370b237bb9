export const metrics = `
CREATE TABLE team_samples (
  team_id text NOT NULL,
  sampled_at timestamptz NOT NULL,
  running_count integer NOT NULL,
  vcpus_reserved integer NOT NULL,
  memory_mb_reserved bigint NOT NULL,
  PRIMARY KEY (team_id, sampled_at)
) PARTITION BY RANGE (sampled_at);
CREATE TABLE team_samples_default PARTITION OF team_samples DEFAULT;

CREATE TABLE capsule_points (
  capsule_id text NOT NULL,
  tier text NOT NULL CHECK (tier IN ('10m', '2h', '24h')),
  at timestamptz NOT NULL,
  cpu_pct real NOT NULL,
  memory_bytes bigint NOT NULL,
  disk_bytes bigint NOT NULL,
  net_rx_bytes bigint NOT NULL,
  net_tx_bytes bigint NOT NULL,
  samples integer NOT NULL,
  PRIMARY KEY (capsule_id, tier, at)
) PARTITION BY LIST (tier);
CREATE TABLE capsule_points_10m PARTITION OF capsule_points FOR VALUES IN ('10m') PARTITION BY RANGE (at);
CREATE TABLE capsule_points_10m_default PARTITION OF capsule_points_10m DEFAULT;
CREATE TABLE capsule_points_2h PARTITION OF capsule_points FOR VALUES IN ('2h') PARTITION BY RANGE (at);
CREATE TABLE capsule_points_2h_default PARTITION OF capsule_points_2h DEFAULT;
CREATE TABLE capsule_points_24h PARTITION OF capsule_points FOR VALUES IN ('24h') PARTITION BY RANGE (at);
CREATE TABLE capsule_points_24h_default PARTITION OF capsule_points_24h DEFAULT;

CREATE TABLE capsule_counters (
  capsule_id text PRIMARY KEY,
  counted_from timestamptz NOT NULL,
  sampled_at timestamptz NOT NULL,
  net_rx_bytes bigint NOT NULL,
  net_tx_bytes bigint NOT NULL
);
`;
