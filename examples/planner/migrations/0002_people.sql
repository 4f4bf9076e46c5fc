-- Who works here, what each can do, and when each is away.
CREATE TABLE staff (
  id      integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  name    text NOT NULL CHECK (length(name) BETWEEN 1 AND 120),
  role    text NOT NULL DEFAULT '',
  site_id integer NOT NULL REFERENCES site,
  percent integer NOT NULL DEFAULT 100 CHECK (percent BETWEEN 5 AND 100), -- of a full-time contract
  joined  date,
  leaves  date,
  CONSTRAINT staff_dates CHECK (leaves IS NULL OR joined IS NULL OR leaves >= joined)
);
CREATE INDEX staff_site ON staff (site_id);

CREATE TABLE skill (
  id   integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  name text NOT NULL UNIQUE CHECK (length(name) BETWEEN 1 AND 80)
);

CREATE TABLE staff_skill (
  id       integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  staff_id integer NOT NULL REFERENCES staff ON DELETE CASCADE,
  skill_id integer NOT NULL REFERENCES skill ON DELETE CASCADE,
  level    integer NOT NULL DEFAULT 2 CHECK (level BETWEEN 1 AND 3),
  UNIQUE (staff_id, skill_id)
);

-- Nobody is on leave twice on one day.
CREATE TABLE vacation (
  id       integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  staff_id integer NOT NULL REFERENCES staff ON DELETE CASCADE,
  starts   date NOT NULL,
  ends     date NOT NULL,
  reason   text NOT NULL DEFAULT 'vacation',
  CONSTRAINT vacation_dates CHECK (ends >= starts),
  CONSTRAINT vacation_once EXCLUDE USING gist (
    int8range(
      staff_id::bigint * 100000 + (starts - DATE '2000-01-01'), staff_id::bigint * 100000 + (ends - DATE '2000-01-01'), '[]'
    ) WITH &&
  )
);
-- down
DROP TABLE vacation;
DROP TABLE staff_skill;
DROP TABLE skill;
DROP TABLE staff;
