-- Days on which a site, or every site, is closed.
CREATE TABLE holiday (
  id      integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  day     date NOT NULL,
  name    text NOT NULL CHECK (length(name) BETWEEN 1 AND 80),
  site_id integer REFERENCES site ON DELETE CASCADE,
  UNIQUE NULLS NOT DISTINCT (day, site_id)
);
-- down
DROP TABLE holiday;
