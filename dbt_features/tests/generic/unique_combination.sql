{% test unique_combination(model, columns) %}

-- Within the minutes that were just computed, no two rows share these columns.
select {{ columns | join(', ') }}
from {{ model }}
where
    minute >= cast('{{ var("first_minute") }}' as timestamptz)
    and minute < cast('{{ var("end_minute") }}' as timestamptz)
group by {{ columns | join(', ') }}
having count(*) > 1

{% endtest %}
