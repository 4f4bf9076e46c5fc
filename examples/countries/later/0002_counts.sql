-- How many subdivisions a page lists, kept with the page; those that are there are counted now.
ALTER TABLE page ADD COLUMN subdivisions INTEGER NOT NULL DEFAULT 0;
UPDATE page SET subdivisions = (SELECT count(*) FROM subdivision);
CREATE INDEX subdivision_kind ON subdivision (kind, name);

-- down
DROP INDEX subdivision_kind;
ALTER TABLE page DROP COLUMN subdivisions;
