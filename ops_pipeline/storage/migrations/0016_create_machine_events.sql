-- What the machine went through while the pipeline ran: sleeps, jumps of the clock, starts.

create table machine_events (
    id bigint generated always as identity primary key,
    what text not null check (what in ('slept', 'jumped', 'restarted')),
    seconds double precision not null,
    at timestamptz not null,
    written_at timestamptz not null default clock_timestamp()
);
create index machine_events_at on machine_events (at);
