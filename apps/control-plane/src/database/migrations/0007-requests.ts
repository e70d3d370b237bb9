export const requests = `
CREATE TABLE idempotent_requests (
  owner text NOT NULL,
  operation text NOT NULL,
  key text NOT NULL,
  request_hash text NOT NULL,
  runner bigint NOT NULL,
  status integer,
  answer text,
  created_at timestamptz NOT NULL DEFAULT now(),
  finished_at timestamptz,
  PRIMARY KEY (owner, operation, key),
  CHECK ((status IS NULL) = (finished_at IS NULL))
);
CREATE INDEX idempotent_requests_created ON idempotent_requests (created_at);

CREATE INDEX capsules_team_status ON capsules (team_id, status, created_at DESC, id DESC);
CREATE INDEX capsules_team_template ON capsules (team_id, template, status, created_at DESC, id DESC);
CREATE INDEX capsules_team_host ON capsules (team_id, host_id, status, created_at DESC, id DESC);
CREATE INDEX capsules_snapshot ON capsules (snapshot_id, created_at DESC, id DESC) WHERE snapshot_id IS NOT NULL;
CREATE INDEX capsules_labels ON capsules USING gin (labels);
`;
