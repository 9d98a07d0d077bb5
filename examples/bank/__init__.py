"""A bank of two services, each with a Postgres database of its own: what an application of Handfast looks like.

``accounts``   the customers' money: one service, from its wire contract to its SQL
``ledger``     the merchants' money, in another database; the same again
``booking``    the SQL that both have in common: change a balance, write a line in the journal
``service``    one service process from start to stop: its database, its participant, its server
``client``     the application: a transfer between the two, interactive and one-shot
``v1``         the wire contract (.proto) and what is generated from it

    python -m examples.bank accounts --dsn postgresql:///accounts --port 7501
    python -m examples.bank ledger   --dsn postgresql:///ledger   --port 7502
"""
