-- A feed's later links, ids and texts of a story belong to the story: by id, by text, or by title and link.

alter table news_provenance add column text_hash text;
alter table news_provenance add column event_at timestamptz;
-- A later text of a story that is known already; the first version stays in news_items.
alter table news_provenance add column revised_title text;
alter table news_provenance add column revised_summary text;

update news_provenance as told
set text_hash = item.text_hash, event_at = least(item.event_at, told.available_at)
from news_items as item
where told.news_id = item.news_id;

alter table news_provenance alter column text_hash set not null;
alter table news_provenance alter column event_at set not null;

create index news_provenance_entry_id on news_provenance (feed, entry_id) where entry_id <> '';
create index news_provenance_text_hash on news_provenance (feed, text_hash);
create index news_provenance_news_id on news_provenance (news_id);
