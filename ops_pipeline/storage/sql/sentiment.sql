-- name: unscored
-- Texts that this model has not scored, with the instant at which each was first known.
select
    item.text_hash,
    min(item.available_at) as available_at,
    min(item.origin) as origin,
    (array_agg(item.title order by item.available_at, item.news_id))[1] as title,
    (array_agg(item.summary order by item.available_at, item.news_id))[1] as summary
from news_items as item
where
    not exists (
        select 1
        from news_sentiments as scored
        where scored.text_hash = item.text_hash and scored.model = :model and scored.revision = :revision
    )
group by item.text_hash
order by available_at, item.text_hash
limit :limit;

-- name: insert_score
-- Keep what a model says of a text.
insert into news_sentiments (
    text_hash, model, revision, backend, precision, label, probability,
    p_positive, p_negative, p_neutral, score, origin, available_at
)
values (
    :text_hash, :model, :revision, :backend, :precision, :label, :probability,
    :p_positive, :p_negative, :p_neutral, :score, :origin, :available_at
)
on conflict (text_hash, model, revision) do nothing;

-- name: count_by_minute
-- How many texts were scored by what was known in each minute of [start, end).
select
    date_trunc('minute', available_at) as minute,
    count(*) as rows_count
from news_sentiments
where available_at >= :start and available_at < :end
group by minute;
