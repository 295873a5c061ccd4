"""The ground floor: configuration, database, errors, HTTP, logs. Knows no noun of the product."""
