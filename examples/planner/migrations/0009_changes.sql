-- Who changed which booking: written by the database itself, whoever writes.
CREATE TABLE change (
  id         integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  booking_id integer NOT NULL,
  what       text NOT NULL CHECK (what IN ('INSERT', 'UPDATE', 'DELETE')),
  who        text NOT NULL DEFAULT '',
  moment     timestamptz NOT NULL DEFAULT now(),
  before     jsonb
);
CREATE INDEX change_booking ON change (booking_id, id);

CREATE FUNCTION booking_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO change (booking_id, what, who, before) VALUES (
    CASE WHEN TG_OP = 'DELETE' THEN OLD.id ELSE NEW.id END,
    TG_OP,
    coalesce(current_setting('planner.who', true), ''),
    CASE WHEN TG_OP = 'INSERT' THEN NULL ELSE to_jsonb(OLD) END
  );
  RETURN NULL;
END
$$;
CREATE TRIGGER booking_change AFTER INSERT OR UPDATE OR DELETE ON booking FOR EACH ROW EXECUTE FUNCTION booking_change();
-- down
DROP TRIGGER booking_change ON booking;
DROP FUNCTION booking_change;
DROP TABLE change;
