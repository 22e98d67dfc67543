-- One row for each text and model; identical text is scored once.

create table news_sentiments (
    text_hash text not null,
    model text not null,
    revision text not null,
    backend text not null,
    precision text not null,
    label text not null check (label in ('positive', 'negative', 'neutral')),
    probability double precision not null check (probability between 0 and 1),
    p_positive double precision not null check (p_positive between 0 and 1),
    p_negative double precision not null check (p_negative between 0 and 1),
    p_neutral double precision not null check (p_neutral between 0 and 1),
    score double precision not null check (score between -1 and 1),
    origin text not null check (origin in ('live', 'recorded')),
    available_at timestamptz not null,
    written_at timestamptz not null default clock_timestamp(),
    primary key (text_hash, model, revision),
    check (abs(p_positive + p_negative + p_neutral - 1) < 1e-5)
);
