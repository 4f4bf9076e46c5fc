-- What every new laboratory begins with.
INSERT INTO setting (name, value) VALUES
  ('title', ''),
  ('accent', '#0f6f5c'),
  ('show_equipment', 'yes'),
  ('warn_above', '100');
INSERT INTO site (name) VALUES ('Main building');
INSERT INTO plan_column (title, position) VALUES ('Office', 10), ('Telephone', 20);
UPDATE plan_column SET shown = false WHERE title = 'Telephone';
INSERT INTO skill (name) VALUES ('Microscopy'), ('Cell culture'), ('Sequencing'), ('Statistics'), ('Laser safety');
