"""That ledger, vault and stores still agree, and copies of what must not be lost; hides nothing, restores no object, opens nothing sealed."""
