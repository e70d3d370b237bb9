export const mail = `
CREATE TABLE mails (
  id text PRIMARY KEY,
  to_address text NOT NULL,
  kind text NOT NULL,
  subject text NOT NULL,
  body text NOT NULL,
  status text NOT NULL CHECK (status IN ('queued', 'sent', 'held', 'failed')),
  attempts integer NOT NULL DEFAULT 0,
  error text,
  created_at timestamp(3) with time zone NOT NULL DEFAULT clock_timestamp(),
  expires_at timestamptz,
  sent_at timestamptz
);
CREATE INDEX mails_created ON mails (created_at DESC, id DESC);
`;
