with

source as (

    select * from {{ source('pipeline', 'bars_1m') }}

),

renamed as (

    select
        ticker,
        minute,
        session_date,
        available_at,

        close,
        (high + low + close) / 3 as typical_price,
        volume

    from source

)

select * from renamed
