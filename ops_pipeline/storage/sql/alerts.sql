-- name: open_alerts
-- What is open now, the worst first.
select
    id,
    cause,
    source,
    level,
    told_level,
    finding,
    expected,
    link,
    suppressed_by,
    opened_at,
    last_seen_at,
    seen_count,
    calm_count,
    calm_needed,
    resolved_at,
    incident_id,
    over_at
from alerts
where resolved_at is null
order by array_position(array['critical', 'high', 'medium', 'low'], level), opened_at, id;

-- name: lock_open
-- Those of some causes, held until the transaction ends.
select
    id,
    cause,
    source,
    level,
    told_level,
    finding,
    expected,
    link,
    suppressed_by,
    opened_at,
    last_seen_at,
    seen_count,
    calm_count,
    calm_needed,
    resolved_at,
    incident_id,
    over_at
from alerts
where resolved_at is null and cause = any(cast(:causes as text[]))
order by cause
for update;

-- name: recent_alerts
-- Open ones and those that are over, the newest first.
select
    id,
    cause,
    source,
    level,
    told_level,
    finding,
    expected,
    link,
    suppressed_by,
    opened_at,
    last_seen_at,
    seen_count,
    calm_count,
    calm_needed,
    resolved_at,
    incident_id,
    over_at
from alerts
where cast(:since as timestamptz) is null or coalesce(resolved_at, :since) >= :since
order by opened_at desc, id desc
limit :limit;

-- name: one_alert
-- One of them.
select
    id,
    cause,
    source,
    level,
    told_level,
    finding,
    expected,
    link,
    suppressed_by,
    opened_at,
    last_seen_at,
    seen_count,
    calm_count,
    calm_needed,
    resolved_at,
    incident_id,
    over_at
from alerts
where id = :id;

-- name: count_flaps
-- How often each of some causes was over within the last hour.
select
    cause,
    count(*) as flaps
from alerts
where resolved_at > :since and cause = any(cast(:causes as text[]))
group by cause
order by cause;

-- name: insert_alert
-- Open one; no row where another observer was faster.
insert into alerts (
    cause, source, level, finding, expected, link, opened_at, last_seen_at, calm_needed
)
values (
    :cause, :source, :level, :finding, :expected, :link, :opened_at, :last_seen_at, :calm_needed
)
on conflict (cause) where resolved_at is null do nothing
returning id;

-- name: update_alert
-- What one more look found.
update alerts
set
    level = :level, told_level = :told_level, finding = :finding, expected = :expected,
    suppressed_by = :suppressed_by, last_seen_at = :last_seen_at, seen_count = :seen_count,
    calm_count = :calm_count, resolved_at = :resolved_at, incident_id = :incident_id,
    over_at = :over_at
where id = :id;

-- name: lock_alerts
-- Until the transaction ends nobody else opens, joins or ends an incident.
lock table alerts in share row exclusive mode;

-- name: incidents
-- Alerts that were told and are not over, or were over lately, each with those that joined them.
select
    id,
    cause,
    source,
    level,
    told_level,
    finding,
    expected,
    link,
    suppressed_by,
    opened_at,
    last_seen_at,
    seen_count,
    calm_count,
    calm_needed,
    resolved_at,
    incident_id,
    over_at
from alerts
where
    coalesce(incident_id, id) in (
        select led.id
        from alerts as led
        where
            led.incident_id is null and led.told_level <> 'normal'
            and (led.over_at is null or led.over_at > :since)
    )
order by id;

-- name: amend_message
-- What was said of an incident and not passed on yet says all that is known of it.
update alert_messages
set level = :level, title = :title, body = :body
where alert_id = :alert_id and not is_passed_on and kind in ('opened', 'raised');

-- name: insert_message
-- Say something; no row where it was said already.
insert into alert_messages (kind, alert_id, session_date, level, title, body, link, made_at)
values (:kind, :alert_id, :session_date, :level, :title, :body, :link, :made_at)
on conflict do nothing
returning id;

-- name: new_messages
-- What nobody has passed on to channels yet, in order.
select
    id,
    kind,
    alert_id,
    level,
    title,
    body,
    link
from alert_messages
where not is_passed_on
order by id
for update skip locked;

-- name: mark_passed_on
-- Those that were.
update alert_messages
set is_passed_on = true
where id = any(cast(:ids as bigint[]));

-- name: drop_held
-- What was held for quiet hours, and is over before them or has grown worse: nobody has to hear of it.
update alert_deliveries as held
set state = 'DROPPED', last_error = :reason
from alert_messages as said
where
    held.message_id = said.id and said.alert_id = :alert_id
    and held.state = 'WAITING' and held.attempts = 0 and held.next_try_at > :now;

-- name: told_channels
-- The channels that were told of an alert, or will be.
select distinct told.channel
from alert_deliveries as told
inner join alert_messages as said on told.message_id = said.id
where said.alert_id = :alert_id and told.state <> 'DROPPED'
order by told.channel;

-- name: insert_delivery
-- A message on its way to a channel.
insert into alert_deliveries (message_id, channel, next_try_at)
values (:message_id, :channel, :next_try_at)
on conflict (message_id, channel) do nothing;

-- name: end_unclear
-- Attempts whose sender died: tried once more, then given up.
update alert_deliveries
set
    state = case when unclear_count = 0 then 'WAITING' else 'GAVE_UP' end,
    unclear_count = unclear_count + 1,
    last_error = 'the sender ended before it could say whether it was sent'
where state = 'SENDING' and next_try_at <= :now;

-- name: claim_deliveries
-- Take what is due; of one alert, a channel gets the next message when it has had the one before.
update alert_deliveries as claimed
set
    state = 'SENDING', attempts = claimed.attempts + 1, claimed_by = :holder,
    next_try_at = cast(:now as timestamptz) + make_interval(secs => :seconds)
from (
    select
        waiting.id,
        said.kind,
        said.level,
        said.title,
        said.body,
        said.link
    from alert_deliveries as waiting
    inner join alert_messages as said on waiting.message_id = said.id
    where
        waiting.state = 'WAITING' and waiting.next_try_at <= :now
        and waiting.channel = any(cast(:channels as text[]))
        and not exists (
            select 1
            from alert_deliveries as earlier
            inner join alert_messages as before on earlier.message_id = before.id
            where
                before.alert_id = said.alert_id and before.id < said.id
                and earlier.channel = waiting.channel and earlier.state in ('WAITING', 'SENDING')
        )
    order by waiting.message_id, waiting.id
    limit :limit
    for update of waiting skip locked
) as picked
where claimed.id = picked.id
returning
    claimed.id, claimed.message_id, claimed.channel, claimed.attempts,
    picked.kind, picked.level, picked.title, picked.body, picked.link;

-- name: mark_delivery
-- How an attempt ended, told by the one who made it.
update alert_deliveries
set
    state = :state, last_error = :error, sent_at = :sent_at, next_try_at = :next_try_at
where id = :id and state = 'SENDING' and claimed_by = :holder;

-- name: insert_told
-- What a channel was told of without waiting for its turn.
insert into alert_deliveries (
    message_id, channel, state, attempts, next_try_at, sent_at, last_error
)
values (:message_id, :channel, :state, 1, :now, :sent_at, :error)
on conflict (message_id, channel) do nothing;

-- name: opened_message
-- What was said when an alert opened.
select id
from alert_messages
where alert_id = :alert_id and kind = 'opened';

-- name: drop_unknown
-- What waits for a channel that is no longer there: nobody has to hear of it.
update alert_deliveries
set state = 'DROPPED', last_error = 'there is no such channel any more'
where state = 'WAITING' and channel <> all(cast(:channels as text[]));

-- name: channel_states
-- How each channel is: what it got last, what waits, what was given up since, and what failed last.
with newest as (
    select
        channel,
        max(sent_at) as sent_at
    from alert_deliveries
    group by channel
),

known as (
    select
        told.*,
        newest.sent_at as newest_sent_at,
        told.state = 'GAVE_UP'
        and told.next_try_at > coalesce(newest.sent_at, '-infinity') as is_lost
    from alert_deliveries as told
    inner join newest on told.channel = newest.channel
)

select
    channel,
    max(newest_sent_at) as last_sent_at,
    count(*) filter (where state in ('WAITING', 'SENDING')) as waiting,
    count(*) filter (where is_lost) as gave_up,
    coalesce(max(attempts) filter (where state = 'WAITING'), 0) as attempts,
    coalesce(
        (array_agg(last_error order by id desc) filter (
            where (state = 'WAITING' or is_lost) and last_error <> ''
        ))[1],
        ''
    ) as last_error
from known
group by channel
order by channel;

-- name: deliveries_of
-- What became of the messages of one alert.
select
    said.id,
    said.kind,
    said.level,
    said.made_at,
    told.channel,
    told.state,
    told.attempts,
    told.sent_at,
    told.last_error
from alert_messages as said
left join alert_deliveries as told on said.id = told.message_id
where said.alert_id = :alert_id
order by said.id, told.channel;

-- name: silences
-- Those that hold now.
select
    cause,
    until,
    reason,
    silenced_by
from alert_silences
where until > :now
order by cause;

-- name: upsert_silence
-- Say nothing of a cause for a while.
insert into alert_silences (cause, until, reason, silenced_by)
values (:cause, :until, :reason, :silenced_by)
on conflict (cause) do update
    set
        until = excluded.until, reason = excluded.reason, silenced_by = excluded.silenced_by,
        written_at = clock_timestamp();

-- name: delete_silence
-- Say all of it again.
delete from alert_silences
where cause = :cause;

-- name: opened_between
-- How many alerts of each level opened in [start, end), and how many are open still.
select
    level,
    count(*) as opened,
    count(*) filter (where resolved_at is null) as still_open
from alerts
where opened_at >= :start and opened_at < :end
group by level
order by array_position(array['critical', 'high', 'medium', 'low'], level);

-- name: has_summary
-- Whether a session was summed up.
select exists(
    select 1 from alert_messages
    where kind = 'summary' and session_date = :session_date
);
