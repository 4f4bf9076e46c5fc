-- What is booked beside people: microscopes, sequencers, rooms.
CREATE TABLE equipment (
  id       integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  name     text NOT NULL UNIQUE CHECK (length(name) BETWEEN 1 AND 120),
  model    text NOT NULL DEFAULT '',
  site_id  integer NOT NULL REFERENCES site,
  skill_id integer REFERENCES skill -- what one must know to use it
);
CREATE INDEX equipment_site ON equipment (site_id);
-- down
DROP TABLE equipment;
