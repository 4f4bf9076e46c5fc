-- A booking gives a person, wholly or in part, or a piece of equipment to a project for some days.
CREATE TABLE booking (
  id           integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  project_id   integer NOT NULL REFERENCES project ON DELETE CASCADE,
  phase_id     integer,
  staff_id     integer REFERENCES staff ON DELETE CASCADE,
  equipment_id integer REFERENCES equipment ON DELETE CASCADE,
  starts       date NOT NULL,
  ends         date NOT NULL,
  percent      integer NOT NULL DEFAULT 100,
  remark       text NOT NULL DEFAULT '',
  CONSTRAINT booking_dates CHECK (ends >= starts AND ends - starts < 3660),
  CONSTRAINT booking_percent CHECK (percent BETWEEN 5 AND 100),
  CONSTRAINT booking_who CHECK (num_nonnulls(staff_id, equipment_id) = 1),
  -- the phase is one of this very project
  CONSTRAINT booking_phase FOREIGN KEY (phase_id, project_id) REFERENCES phase (id, project_id) ON DELETE CASCADE,
  -- equipment serves one project at a time
  CONSTRAINT equipment_once EXCLUDE USING gist (
    int8range(
      equipment_id::bigint * 100000 + (starts - DATE '2000-01-01'),
      equipment_id::bigint * 100000 + (ends - DATE '2000-01-01'), '[]'
    ) WITH &&
  ) WHERE (equipment_id IS NOT NULL)
);
CREATE INDEX booking_staff ON booking (staff_id, starts);
CREATE INDEX booking_project ON booking (project_id);

-- Nobody gives more than all of a day. Bookings of one person are judged one after the other: the row of the person is
-- locked until the transaction ends, so that two at once cannot both fit.
CREATE FUNCTION booking_load() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  person text;
  fullest record;
BEGIN
  IF NEW.staff_id IS NULL THEN
    RETURN NEW;
  END IF;
  SELECT name INTO person FROM staff WHERE id = NEW.staff_id FOR UPDATE;
  SELECT day, sum(other.percent) + NEW.percent AS load INTO fullest
  FROM (
    SELECT NEW.starts AS day
    UNION
    SELECT starts FROM booking WHERE staff_id = NEW.staff_id AND starts BETWEEN NEW.starts AND NEW.ends
  ) AS days
  JOIN booking AS other ON other.staff_id = NEW.staff_id AND other.id <> NEW.id AND day BETWEEN other.starts AND other.ends
  GROUP BY day ORDER BY load DESC, day LIMIT 1;
  IF fullest.load > 100 THEN
    RAISE EXCEPTION '% is booked % percent on % already; with this booking it is % percent.',
      person, fullest.load - NEW.percent, fullest.day, fullest.load
      USING ERRCODE = 'check_violation', CONSTRAINT = 'booking_load';
  END IF;
  RETURN NEW;
END
$$;
CREATE TRIGGER booking_load BEFORE INSERT OR UPDATE ON booking FOR EACH ROW EXECUTE FUNCTION booking_load();
-- down
DROP TABLE booking;
DROP FUNCTION booking_load;
