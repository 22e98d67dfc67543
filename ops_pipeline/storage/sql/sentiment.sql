-- name: unscored
-- Texts that this model has not scored nor been given up on, with the instant at which each was first known.
-- The newest first: another model scores the whole past anew, which features look back on no more.
select
    item.text_hash,
    coalesce(max(tried.attempts), 0) as attempts,
    min(item.available_at) as available_at,
    min(item.origin) as origin,
    (array_agg(item.title order by item.available_at, item.news_id))[1] as title,
    (array_agg(item.summary order by item.available_at, item.news_id))[1] as summary
from news_items as item
left join news_scoring_attempts as tried
    on item.text_hash = tried.text_hash and tried.model = :model and tried.revision = :revision
where
    coalesce(tried.attempts, 0) < :most_attempts
    and not exists (
        select 1
        from news_sentiments as scored
        where scored.text_hash = item.text_hash and scored.model = :model and scored.revision = :revision
    )
group by item.text_hash
order by available_at desc, item.text_hash
limit :limit;

-- name: insert_score
-- Keep what a model says of a text.
insert into news_sentiments (
    text_hash, model, revision, backend, precision, weights, label, probability,
    p_positive, p_negative, p_neutral, score, is_truncated, origin, available_at
)
values (
    :text_hash, :model, :revision, :backend, :precision, :weights, :label, :probability,
    :p_positive, :p_negative, :p_neutral, :score, :is_truncated, :origin, :available_at
)
on conflict (text_hash, model, revision) do nothing;

-- name: begin_attempt
-- A text is about to be scored; should that end the process, it counts.
insert into news_scoring_attempts (text_hash, model, revision, attempts, reason)
values (:text_hash, :model, :revision, 1, 'the process ended')
on conflict (text_hash, model, revision) do update
    set attempts = news_scoring_attempts.attempts + 1, reason = excluded.reason, begun_at = clock_timestamp();

-- name: fail_attempt
-- Why a text could not be scored.
update news_scoring_attempts set reason = :reason
where text_hash = :text_hash and model = :model and revision = :revision;

-- name: end_attempt
-- Nothing is left of the attempts at a text.
delete from news_scoring_attempts
where text_hash = :text_hash and model = :model and revision = :revision;

-- name: backlog
-- How many texts wait for a score of this model, and how many it was given up on.
select
    count(distinct item.text_hash) filter (where coalesce(tried.attempts, 0) < :most_attempts) as waiting,
    count(distinct item.text_hash) filter (where tried.attempts >= :most_attempts) as given_up
from news_items as item
left join news_scoring_attempts as tried
    on item.text_hash = tried.text_hash and tried.model = :model and tried.revision = :revision
where
    not exists (
        select 1
        from news_sentiments as scored
        where scored.text_hash = item.text_hash and scored.model = :model and scored.revision = :revision
    );

-- name: count_by_minute
-- How many texts were scored by what was known in each minute of [start, end).
select
    date_trunc('minute', available_at) as minute,
    count(*) as rows_count
from news_sentiments
where available_at >= :start and available_at < :end
group by minute
order by minute;
