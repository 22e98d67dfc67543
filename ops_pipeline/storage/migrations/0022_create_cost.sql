-- What a day of this pipeline would cost on AWS: measured task-seconds at the prices of a table.

create table cost_lines (
    day date not null,
    item text not null,
    quantity double precision not null check (quantity >= 0),
    unit text not null,
    usd double precision not null check (usd >= 0),
    is_standing boolean not null,
    measured_at timestamptz not null,
    primary key (day, item)
);
