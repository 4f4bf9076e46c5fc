-- What the platform gives to all agencies. It is named in `shared`: each tenant reads it, and migrations alone write it.
CREATE TABLE platform_guides (
  id      integer PRIMARY KEY,
  slug    text NOT NULL UNIQUE,
  title   text NOT NULL,
  about   text NOT NULL,
  minutes integer NOT NULL CHECK (minutes > 0), -- to read it
  body    text NOT NULL
);
INSERT INTO platform_guides (id, slug, title, about, minutes, body) VALUES
  (1, 'a-brief-that-works', 'A brief that works', 'One page, one aim, one reader.', 4,
   'Write down what should change, and in whom. "More people know us" changes nobody; "parents book the second lesson" does.

Name one audience. Two audiences are two briefs, even if one poster serves both in the end.

Say what must stay out. Whoever reads the brief draws its edges faster by what is missing than by what is there.

End with the number that will tell whether it worked, and the day on which you will look at it.'),
  (2, 'subject-lines', 'Subject lines', 'Forty characters that decide about the rest.', 3,
   'The first forty characters are all that a telephone shows. Put the thing itself there, not its name.

Promise what the first screen holds. A line that is better than its mail works once.

Try two of them on a tenth of the list each, wait four hours, and send the better one to the rest.'),
  (3, 'pictures-for-the-feed', 'Pictures for the feed', 'Sizes, edges and what the crop leaves.', 5,
   'Compose for the square in the middle: feeds cut the edges off, and each does so differently.

Keep text under a fifth of the picture, and say the same in the alternative text.

Export at twice the size it is shown at, and look at it on a telephone, outdoors, before anybody else does.'),
  (4, 'measuring-a-launch', 'Measuring a launch', 'What to count before there is anything to count.', 6,
   'Count the week before the launch, or there is nothing to compare with.

Choose one number for the client and three for yourselves. Write all four into the brief.

Stop counting on the day you agreed on. Campaigns that are measured until they succeed always do.'),
  (5, 'working-with-reviews', 'Working with reviews', 'How work comes back once instead of five times.', 3,
   'Ask one question for each review: is it true, is it on brief, is it pretty? Never all at once.

One person gathers what everybody said and answers for it. What contradicts itself goes back to whoever said it.

A review without a date is a wish. Put the due date on the task.');
-- down
DROP TABLE platform_guides;
