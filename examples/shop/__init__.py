"""The README's first transaction: a shop whose stock and whose orders are in two databases.

``databases``  two Postgres servers for trying it out
``service``    one service: a database, an operation, a participant
``order``      the application: takes from the stock and places the order, or neither
"""
