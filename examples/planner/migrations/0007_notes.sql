-- What is to be remembered of a project or of a person, and on which day it matters.
CREATE TABLE note (
  id         integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  body       text NOT NULL CHECK (length(body) BETWEEN 1 AND 4000),
  day        date,
  project_id integer REFERENCES project ON DELETE CASCADE,
  staff_id   integer REFERENCES staff ON DELETE CASCADE,
  CONSTRAINT note_about CHECK (num_nonnulls(project_id, staff_id) = 1)
);
-- down
DROP TABLE note;
