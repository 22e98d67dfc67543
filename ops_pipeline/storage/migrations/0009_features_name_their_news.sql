-- A feature row names the stories that its sentiment was made of, so that a trade can name them too.

alter table features.features_1m add column news_ids text[] not null default '{}';
