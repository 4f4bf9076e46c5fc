-- What every new agency begins with; it runs as that agency.
INSERT INTO campaign (name, client, starts, ends)
  VALUES ('First steps', 'Ourselves', current_date, current_date + 28);
INSERT INTO task (campaign_id, guide_id, title, due)
  SELECT campaign.id, guide.id, 'Read: ' || guide.title, current_date + 7 * guide.id
  FROM campaign, platform_guides AS guide WHERE guide.id < 4;
