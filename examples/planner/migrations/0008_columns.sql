-- Columns of the laboratory's own, shown beside the names in the plan.
CREATE TABLE plan_column (
  id       integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  title    text NOT NULL UNIQUE CHECK (length(title) BETWEEN 1 AND 40),
  position integer NOT NULL DEFAULT 10,
  shown    boolean NOT NULL DEFAULT true
);

CREATE TABLE column_value (
  id           integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  column_id    integer NOT NULL REFERENCES plan_column ON DELETE CASCADE,
  staff_id     integer REFERENCES staff ON DELETE CASCADE,
  equipment_id integer REFERENCES equipment ON DELETE CASCADE,
  value        text NOT NULL CHECK (length(value) BETWEEN 1 AND 80),
  CONSTRAINT column_value_of CHECK (num_nonnulls(staff_id, equipment_id) = 1),
  UNIQUE NULLS NOT DISTINCT (column_id, staff_id, equipment_id)
);
-- down
DROP TABLE column_value;
DROP TABLE plan_column;
