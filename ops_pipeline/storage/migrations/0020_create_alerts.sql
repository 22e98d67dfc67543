-- What an operator has to know of: one open row for each cause, what was said of it, and to whom.

create table alerts (
    id bigint generated always as identity primary key,
    cause text not null,
    source text not null,
    -- The worst since it opened; told_level is the worst that messages were written of.
    level text not null check (level in ('low', 'medium', 'high', 'critical')),
    told_level text not null default 'normal' check (
        told_level in ('normal', 'low', 'medium', 'high', 'critical')
    ),
    finding text not null,
    expected text not null default '',
    link text not null default '',
    suppressed_by text not null default '',
    opened_at timestamptz not null,
    last_seen_at timestamptz not null,
    seen_count integer not null default 1 check (seen_count > 0),
    -- Looks that found nothing, one after the other; and how many of them end the alert.
    calm_count integer not null default 0 check (calm_count >= 0),
    calm_needed integer not null check (calm_needed > 0),
    resolved_at timestamptz,
    written_at timestamptz not null default clock_timestamp()
);
create unique index alerts_open on alerts (cause) where resolved_at is null;
create index alerts_resolved on alerts (resolved_at);

-- Written in the transaction that opens, raises or resolves an alert.
create table alert_messages (
    id bigint generated always as identity primary key,
    kind text not null check (kind in ('opened', 'raised', 'resolved', 'summary', 'test')),
    alert_id bigint references alerts on delete cascade,
    session_date date,
    level text not null check (level in ('low', 'medium', 'high', 'critical')),
    title text not null,
    body text not null,
    link text not null default '',
    made_at timestamptz not null,
    is_passed_on boolean not null default false,
    written_at timestamptz not null default clock_timestamp(),
    check ((kind in ('opened', 'raised', 'resolved')) = (alert_id is not null)),
    check ((kind = 'summary') = (session_date is not null))
);
-- Nothing is said twice, whoever says it.
create unique index alert_messages_opened on alert_messages (alert_id) where kind = 'opened';
create unique index alert_messages_raised on alert_messages (alert_id, level) where kind = 'raised';
create unique index alert_messages_resolved on alert_messages (alert_id) where kind = 'resolved';
create unique index alert_messages_summary on alert_messages (session_date) where kind = 'summary';
create index alert_messages_new on alert_messages (id) where not is_passed_on;

-- One message on its way to one channel; where a channel leads is never stored.
create table alert_deliveries (
    id bigint generated always as identity primary key,
    message_id bigint not null references alert_messages on delete cascade,
    channel text not null,
    state text not null default 'WAITING' check (
        state in ('WAITING', 'SENDING', 'SENT', 'GAVE_UP', 'DROPPED')
    ),
    attempts integer not null default 0 check (attempts >= 0),
    -- Attempts of which nobody knows the end, because the sender died.
    unclear_count integer not null default 0 check (unclear_count >= 0),
    next_try_at timestamptz not null,
    claimed_by uuid,
    sent_at timestamptz,
    last_error text not null default '',
    written_at timestamptz not null default clock_timestamp(),
    unique (message_id, channel)
);
create index alert_deliveries_due on alert_deliveries (next_try_at)
where state in ('WAITING', 'SENDING');
create index alert_deliveries_sent on alert_deliveries (channel, sent_at);

-- What a person wants to hear nothing of for a while; a cause may end with a star.
create table alert_silences (
    cause text primary key,
    until timestamptz not null,
    reason text not null,
    silenced_by text not null,
    written_at timestamptz not null default clock_timestamp()
);
