-- The working days that each project takes, kept beside it.
ALTER TABLE project ADD COLUMN effort numeric NOT NULL DEFAULT 0;
UPDATE project SET effort = coalesce((
  SELECT sum(percent / 100.0)
  FROM booking, generate_series(starts, ends, interval '1 day') AS day
  WHERE booking.project_id = project.id AND staff_id IS NOT NULL AND extract(isodow FROM day) < 6
), 0);
-- down
ALTER TABLE project DROP COLUMN effort;
