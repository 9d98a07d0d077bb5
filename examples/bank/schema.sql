-- One bank database. The accounts service and the ledger service each own one, in clusters of their own.

-- Money, in cents. The CHECK is what refuses an overdraft: the database says no, and so the whole transfer aborts.
CREATE TABLE IF NOT EXISTS account (
    id      bigint PRIMARY KEY,
    balance bigint NOT NULL CHECK (balance >= 0)
);

-- Every change of a balance, written by the same transaction. A transfer leaves one line in each database, and the two
-- amounts add up to nothing: whatever crashes, a transfer with one line only would be half a transfer.
-- Lines of one account are numbered in the order in which their transactions committed, because a line is numbered
-- while the account's row is locked.
CREATE TABLE IF NOT EXISTS journal (
    line     bigint GENERATED ALWAYS AS IDENTITY,
    transfer text NOT NULL,
    account  bigint NOT NULL,
    amount   bigint NOT NULL,
    PRIMARY KEY (account, transfer)
);
