"""Signs and verifies evidence; never sees a contract."""
