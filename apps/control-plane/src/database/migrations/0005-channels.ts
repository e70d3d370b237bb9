export const channels = `
CREATE TABLE channels (
  id text PRIMARY KEY,
  team_id text NOT NULL REFERENCES teams (id) ON DELETE CASCADE,
  name text NOT NULL,
  provider text NOT NULL,
  config jsonb NOT NULL,
  events text[] NOT NULL,
  created_by text,
  created_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now(),
  disabled_at timestamptz,
  disabled_reason text,
  failing_since timestamptz,
  held_until timestamptz,
  leased_by text,
  leased_until timestamptz
);
CREATE UNIQUE INDEX channels_name ON channels (team_id, name);

CREATE TABLE events (
  id text PRIMARY KEY,
  type text NOT NULL,
  team_id text NOT NULL REFERENCES teams (id) ON DELETE CASCADE,
  actor_type text NOT NULL,
  actor_id text,
  actor_name text NOT NULL,
  resource_type text NOT NULL,
  resource_id text NOT NULL,
  data jsonb NOT NULL DEFAULT '{}',
  created_at timestamp(3) with time zone NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX events_created ON events (created_at);

CREATE TABLE deliveries (
  id text PRIMARY KEY,
  seq bigint NOT NULL GENERATED ALWAYS AS IDENTITY,
  channel_id text NOT NULL REFERENCES channels (id) ON DELETE CASCADE,
  event_id text NOT NULL REFERENCES events (id) ON DELETE CASCADE,
  status text NOT NULL CHECK (status IN ('pending', 'delivered', 'failed')),
  attempts integer NOT NULL DEFAULT 0,
  retries integer NOT NULL DEFAULT 0,
  next_attempt_at timestamptz,
  give_up_at timestamptz NOT NULL,
  created_at timestamp(3) with time zone NOT NULL DEFAULT clock_timestamp(),
  finished_at timestamptz
);
CREATE INDEX deliveries_channel ON deliveries (channel_id, seq);
CREATE INDEX deliveries_event ON deliveries (event_id);
CREATE INDEX deliveries_pending ON deliveries (channel_id, seq) WHERE status = 'pending';
CREATE INDEX deliveries_due ON deliveries (next_attempt_at) WHERE status = 'pending';

CREATE TABLE delivery_attempts (
  delivery_id text NOT NULL REFERENCES deliveries (id) ON DELETE CASCADE,
  number integer NOT NULL,
  started_at timestamptz NOT NULL,
  duration_ms integer NOT NULL,
  status_code integer,
  error text,
  PRIMARY KEY (delivery_id, number)
);
`;
