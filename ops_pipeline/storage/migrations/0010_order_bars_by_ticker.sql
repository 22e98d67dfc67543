-- Looking back goes by ticker; with a tree on the minute alone the planner read every ticker's bars for each.
drop index bars_1m_minute;
create index bars_1m_minute on bars_1m using brin (minute) with (pages_per_range = 16);
