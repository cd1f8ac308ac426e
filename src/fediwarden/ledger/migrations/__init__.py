"""The history of the ledger's tables, one file a step; how and when they are run is `ledger.migrate`."""
