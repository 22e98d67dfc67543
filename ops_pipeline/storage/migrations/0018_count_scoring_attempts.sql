-- Which weights scored a text and whether all of it was read; texts that could not be scored.

alter table news_sentiments add column weights text not null default '';
alter table news_sentiments add column is_truncated boolean not null default false;

-- A row stands here while a text is scored, and stays where that fails or ends the process.
create table news_scoring_attempts (
    text_hash text not null,
    model text not null,
    revision text not null,
    attempts integer not null check (attempts > 0),
    reason text not null,
    begun_at timestamptz not null default clock_timestamp(),
    primary key (text_hash, model, revision)
);
