CREATE TABLE page (
  id INTEGER NOT NULL PRIMARY KEY CHECK (id = 1),   -- each country has one
  title TEXT NOT NULL,
  text TEXT NOT NULL
) STRICT;

CREATE TABLE subdivision (
  code TEXT NOT NULL PRIMARY KEY,                   -- ISO 3166-2
  name TEXT NOT NULL,
  kind TEXT NOT NULL
) STRICT;

-- down
DROP TABLE subdivision;
DROP TABLE page;
