-- Projects, their phases, and the skills that a phase asks for.
CREATE TABLE project (
  id     integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  name   text NOT NULL UNIQUE CHECK (length(name) BETWEEN 1 AND 120),
  code   text NOT NULL DEFAULT '',
  colour text NOT NULL DEFAULT '#3568d4' CHECK (colour ~ '^#[0-9a-f]{6}$'),
  starts date NOT NULL,
  ends   date NOT NULL,
  CONSTRAINT project_dates CHECK (ends >= starts)
);

CREATE TABLE phase (
  id         integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  project_id integer NOT NULL REFERENCES project ON DELETE CASCADE,
  name       text NOT NULL CHECK (length(name) BETWEEN 1 AND 120),
  starts     date NOT NULL,
  ends       date NOT NULL,
  milestone  boolean NOT NULL DEFAULT false, -- its end is one
  CONSTRAINT phase_dates CHECK (ends >= starts),
  UNIQUE (project_id, name),
  UNIQUE (id, project_id)
);

CREATE TABLE phase_skill (
  id       integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  phase_id integer NOT NULL REFERENCES phase ON DELETE CASCADE,
  skill_id integer NOT NULL REFERENCES skill ON DELETE CASCADE,
  UNIQUE (phase_id, skill_id)
);
-- down
DROP TABLE phase_skill;
DROP TABLE phase;
DROP TABLE project;
