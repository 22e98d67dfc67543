-- Each tick counts what became known in its minutes; news and scores are kept for ever.
create index news_items_available_at on news_items (available_at);
create index news_sentiments_available_at on news_sentiments (available_at);
