-- How fast the minute loop was, session by session, and what it missed.

-- A stage that goes over a minute again writes it again; how fast it was is told by the first time.
alter table stage_minutes add column first_written_at timestamptz;
update stage_minutes set first_written_at = written_at;
alter table stage_minutes alter column first_written_at set default clock_timestamp();
alter table stage_minutes alter column first_written_at set not null;

-- One row for each phase of a session's minutes; a phase that no minute has gone through has no seconds.
create table pipeline_slo (
    session_date date not null,
    phase text not null,
    count integer not null check (count >= 0),
    p50_seconds double precision,
    p95_seconds double precision,
    p99_seconds double precision,
    max_seconds double precision,
    primary key (session_date, phase),
    check ((count > 0) = (p50_seconds is not null)),
    check (p50_seconds <= p95_seconds and p95_seconds <= p99_seconds and p99_seconds <= max_seconds)
);

-- What a session counts as a whole; the sizes since are those that the growth is counted from.
create table pipeline_slo_counters (
    session_date date primary key,
    minutes integer not null,
    skipped integer not null,
    late integer not null,
    first_skipped timestamptz,
    first_late timestamptz,
    since timestamptz,
    event_log_bytes_since bigint,
    database_bytes_since bigint,
    event_log_bytes bigint,
    database_bytes bigint,
    event_log_growth_bytes bigint,
    database_growth_bytes bigint,
    measured_at timestamptz not null,
    check (skipped >= 0 and late >= 0 and skipped + late <= minutes),
    check ((skipped > 0) = (first_skipped is not null)),
    check ((late > 0) = (first_late is not null))
);
