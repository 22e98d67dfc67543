-- A story may name a ticker as exchanges do: (NASDAQ: AAPL).

alter table news_tickers drop constraint news_tickers_match_source_check;
alter table news_tickers add constraint news_tickers_match_source_check
check (match_source in ('feed', 'exchange', 'cashtag', 'symbol', 'alias'));
