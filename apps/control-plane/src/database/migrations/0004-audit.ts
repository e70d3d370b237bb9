export const audit = `
CREATE TABLE audit_log (
  id text NOT NULL,
  team_id text,
  actor_type text NOT NULL CHECK (actor_type IN ('user', 'api_key', 'system')),
  actor_id text,
  actor_name text NOT NULL,
  address text,
  resource_type text NOT NULL,
  resource_id text,
  action text NOT NULL,
  scope text NOT NULL CHECK (scope IN ('team', 'admin', 'platform')),
  status text NOT NULL CHECK (status IN ('success', 'info', 'warning', 'error')),
  metadata jsonb NOT NULL DEFAULT '{}',
  request_id text,
  created_at timestamp(3) with time zone NOT NULL DEFAULT clock_timestamp(),
  written_in xid8 NOT NULL DEFAULT pg_current_xact_id(),
  PRIMARY KEY (created_at, id)
) PARTITION BY RANGE (created_at);
CREATE TABLE audit_log_default PARTITION OF audit_log DEFAULT;
CREATE INDEX audit_log_team ON audit_log (team_id, created_at DESC, id DESC);
CREATE INDEX audit_log_resource ON audit_log (team_id, resource_type, created_at DESC, id DESC);
CREATE INDEX audit_log_written ON audit_log (team_id, written_in, created_at, id);
CREATE INDEX audit_log_platform ON audit_log (created_at DESC, id DESC) WHERE scope = 'platform';
CREATE INDEX audit_log_actor ON audit_log (actor_id, created_at DESC);

CREATE FUNCTION refuse_audit_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF current_setting('wrenn.audit_maintenance', true) = 'on' THEN
    RETURN CASE TG_OP WHEN 'DELETE' THEN OLD ELSE NEW END;
  END IF;
  RAISE EXCEPTION 'entries of the audit log are not changed' USING ERRCODE = 'insufficient_privilege';
END
$$;
CREATE TRIGGER audit_log_unchanged BEFORE UPDATE OR DELETE ON audit_log
  FOR EACH ROW EXECUTE FUNCTION refuse_audit_change();

ALTER TABLE operations ADD COLUMN asked_by jsonb;
`;
