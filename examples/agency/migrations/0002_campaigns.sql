-- What an agency works on. Nothing here knows of tenants: Tenantry makes it safe to share when it runs this file.
CREATE TABLE campaign (
  id     bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  name   text NOT NULL CONSTRAINT campaign_once UNIQUE CONSTRAINT campaign_name CHECK (length(name) BETWEEN 1 AND 80),
  client text NOT NULL DEFAULT '' CONSTRAINT campaign_client CHECK (length(client) <= 80),
  colour text NOT NULL DEFAULT '#5b3fd6' CONSTRAINT campaign_colour CHECK (colour ~ '^#[0-9a-f]{6}$'),
  starts date NOT NULL,
  ends   date NOT NULL,
  CONSTRAINT campaign_dates CHECK (ends >= starts AND ends - starts < 1100)
);

CREATE TABLE brief (
  id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  campaign_id bigint NOT NULL REFERENCES campaign ON DELETE CASCADE,
  title       text NOT NULL CONSTRAINT brief_title CHECK (length(title) BETWEEN 1 AND 120),
  audience    text NOT NULL DEFAULT '',
  message     text NOT NULL DEFAULT '',
  body        text NOT NULL DEFAULT ''
);
CREATE INDEX brief_campaign ON brief (campaign_id);

CREATE TABLE task (
  id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  campaign_id bigint NOT NULL CONSTRAINT task_campaign REFERENCES campaign ON DELETE CASCADE,
  guide_id    integer CONSTRAINT task_guide REFERENCES platform_guides, -- a row that all tenants read
  title       text NOT NULL CONSTRAINT task_title CHECK (length(title) BETWEEN 1 AND 120),
  who         text NOT NULL DEFAULT '' CONSTRAINT task_who CHECK (length(who) <= 80),
  state       text NOT NULL DEFAULT 'planned' CONSTRAINT task_state CHECK (state IN ('planned', 'doing', 'review', 'done')),
  due         date NOT NULL
);
CREATE INDEX task_due ON task (campaign_id, due);

-- The file itself lies in the tenant's directory, under the id.
CREATE TABLE asset (
  id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  campaign_id bigint REFERENCES campaign ON DELETE SET NULL,
  name        text NOT NULL CONSTRAINT asset_once UNIQUE CONSTRAINT asset_name CHECK (length(name) BETWEEN 1 AND 120),
  kind        text NOT NULL,
  size        bigint NOT NULL, -- bytes
  added       timestamptz NOT NULL DEFAULT now(),
  added_by    text NOT NULL DEFAULT ''
);

CREATE VIEW campaign_progress AS
  SELECT campaign_id, count(*) AS tasks, count(*) FILTER (WHERE state = 'done') AS done
  FROM task GROUP BY campaign_id;
-- down
DROP VIEW campaign_progress;
DROP TABLE asset;
DROP TABLE task;
DROP TABLE brief;
DROP TABLE campaign;
