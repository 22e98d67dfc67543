-- The five acceptance queries, word for word as the runbook prints them.
-- Asset checks ask them of the pipeline's present: :now for NOW(), :today for CURRENT_DATE.

-- name: backlog_state
SELECT status, COUNT(*) 
FROM dispatch_recommendations
GROUP BY status
ORDER BY status;

-- name: stuck_processing
SELECT COUNT(*) 
FROM dispatch_recommendations
WHERE status = 'PROCESSING' 
  AND ts < NOW() - INTERVAL '10 minutes';

-- name: duplicate_executions
SELECT recommendation_id, COUNT(*) 
FROM dispatch_executions
GROUP BY recommendation_id
HAVING COUNT(*) > 1;

-- name: recent_dispatcher_runs
SELECT 
  started_at,
  finished_at,
  pulled_count,
  simulated_count,
  skipped_count,
  failed_count
FROM dispatcher_runs
ORDER BY started_at DESC
LIMIT 10;

-- name: execution_volume
SELECT COUNT(*) 
FROM dispatch_executions
WHERE simulated_ts >= CURRENT_DATE;

-- name: executions_since
select count(*) as count
from dispatch_executions
where simulated_ts >= :since and simulated_ts <= :now;

-- name: first_run
select min(started_at) as started_at from dispatcher_runs;
