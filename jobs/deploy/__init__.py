"""The Docker deployment service: a compose application into a TEE, sealed, validated and verified."""
