-- What dbt fills: one row for each ticker and minute that has enough bars.

create schema if not exists features;

create table features.features_1m (
    ticker text not null,
    minute timestamptz not null,
    session_date date not null,
    bar_at timestamptz not null,
    close double precision not null,
    sma20 double precision not null,
    sma50 double precision not null,
    recent_vol double precision,
    baseline_vol double precision,
    vol_ratio double precision,
    distance_sma20 double precision not null,
    distance_sma50 double precision not null,
    trend_state integer not null,
    volume bigint not null,
    volume_avg_20 double precision not null,
    volume_ratio double precision not null,
    volume_surge boolean not null,
    session_vwap double precision,
    news_count_30 integer not null,
    news_count_60 integer not null,
    sentiment_30 double precision,
    sentiment_60 double precision,
    sentiment_strength_30 double precision,
    sentiment_strength_60 double precision,
    news_age_seconds_30 double precision,
    news_age_seconds_60 double precision,
    confident_count_30 integer not null,
    confident_sentiment_30 double precision,
    positive_count_30 integer not null,
    negative_count_30 integer not null,
    neutral_count_30 integer not null,
    available_at timestamptz not null,
    written_at timestamptz not null,
    primary key (ticker, minute)
);
create index features_1m_minute on features.features_1m (minute);
