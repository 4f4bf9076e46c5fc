-- Words of every page, kept by triggers, so that whoever writes a page need not think of the index.
CREATE VIRTUAL TABLE page_words USING fts5 (
  title, summary, body, content='page', content_rowid='id', tokenize='unicode61 remove_diacritics 2'
);

INSERT INTO page_words (page_words) VALUES ('rebuild');

CREATE TRIGGER page_words_insert AFTER INSERT ON page BEGIN
  INSERT INTO page_words (rowid, title, summary, body) VALUES (new.id, new.title, new.summary, new.body);
END;

CREATE TRIGGER page_words_delete AFTER DELETE ON page BEGIN
  INSERT INTO page_words (page_words, rowid, title, summary, body)
  VALUES ('delete', old.id, old.title, old.summary, old.body);
END;

CREATE TRIGGER page_words_update AFTER UPDATE OF title, summary, body ON page BEGIN
  INSERT INTO page_words (page_words, rowid, title, summary, body)
  VALUES ('delete', old.id, old.title, old.summary, old.body);
  INSERT INTO page_words (rowid, title, summary, body) VALUES (new.id, new.title, new.summary, new.body);
END;

-- down
DROP TRIGGER page_words_update;
DROP TRIGGER page_words_delete;
DROP TRIGGER page_words_insert;
DROP TABLE page_words;
