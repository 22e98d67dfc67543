-- How far back the features of a minute may look, counted in the exchange's own sessions and minutes.
-- Both are null for a minute that was decided before these columns existed: it is not bounded.

alter table minute_cutoffs add column window_starts_at timestamptz;
alter table minute_cutoffs add column oldest_bar_at timestamptz;
alter table minute_cutoffs add check (window_starts_at <= oldest_bar_at and oldest_bar_at <= minute);

-- A class of shares has one spelling, which is Alpaca's: BRK.B.
update universe
set ticker = replace(ticker, '-', '.')
where
    ticker like '%-%'
    and replace(ticker, '-', '.') not in (select known.ticker from universe as known);
delete from universe
where ticker like '%-%';
