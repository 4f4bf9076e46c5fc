-- What a new site begins with: something to look at, and to write over.
INSERT INTO page (slug, kind, title, summary, body, published, position) VALUES
('home', 'page', 'Welcome', 'A new place on the web, and it is yours.',
'A new place on the web, and it is yours. Sign in, open **Desk**, and write over these words: everything here is plain Markdown.

[Read how this site works](how-this-site-works)', 1, 1),
('about', 'page', 'About', 'Who is behind this site.',
'Say who you are, what you do, and how to reach you. Visitors read this page more often than any other.

## Where to find us

| Day | Hours |
| --- | --- |
| Monday to Friday | 9 to 18 |
| Saturday | 10 to 14 |

> A site is a good host when guests find the door.', 1, 2);

INSERT INTO page (slug, kind, title, summary, body, published, position, created_at, revised_at) VALUES
('how-this-site-works', 'story', 'How this site works', 'Pages, stories, pictures and looks in two minutes.',
'There are two kinds of writing here. **Pages** stand in the menu and stay. **Stories** are listed by date, newest first, and
travel in the [feed](feed.xml).

## Write

Everything is Markdown: `**bold**`, `*soft*`, lists, tables, quotes and pictures. The preview beside the editor shows what
readers will get, and every saved version is kept.

## Show

Each story draws a picture of its own from its name and your colour. Choose an uploaded picture as its cover, and that
one is shown instead.

1. Open *Media* and drop a picture there.
2. Open a story and choose it as the cover.
3. Publish.', 1, 0, strftime('%Y-%m-%dT%H:%M:%SZ', 'now', '-1 minute'), strftime('%Y-%m-%dT%H:%M:%SZ', 'now')),
('choose-a-look', 'story', 'Choose a look', 'Paper, Studio, Garden or Ledger: four looks, and one colour that is yours.',
'*Settings* has four looks. **Paper** reads like a magazine, **Studio** is loud, **Garden** is round and friendly, **Ledger** is for
people who like things in order. Pick a colour too: its shades are worked out so that text stays readable, by day and by night.', 1, 0,
strftime('%Y-%m-%dT%H:%M:%SZ', 'now', '-2 minutes'), strftime('%Y-%m-%dT%H:%M:%SZ', 'now')),
('your-readers', 'story', 'Your readers, counted kindly', 'Views per page and day, without a cookie and without a third party.',
'The desk shows how often each page was read, day by day. Nothing is stored about who read it: no cookie, no address, no
third party. Only a number.', 1, 0,
strftime('%Y-%m-%dT%H:%M:%SZ', 'now', '-3 minutes'), strftime('%Y-%m-%dT%H:%M:%SZ', 'now'));
