{% test within_window(model, condition) %}

-- Within the minutes that were just computed, the condition holds for every row.
select ticker, minute
from {{ model }}
where
    minute >= cast('{{ var("first_minute") }}' as timestamptz)
    and minute < cast('{{ var("end_minute") }}' as timestamptz)
    and not ({{ condition }})

{% endtest %}
