-- Settings of the laboratory, and where it works.
CREATE TABLE setting (
  id    integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  name  text NOT NULL UNIQUE,
  value text NOT NULL DEFAULT ''
);

CREATE TABLE site (
  id   integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  name text NOT NULL UNIQUE CHECK (length(name) BETWEEN 1 AND 80),
  city text NOT NULL DEFAULT ''
);
-- down
DROP TABLE site;
DROP TABLE setting;
