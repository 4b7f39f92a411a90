"""A user's compose file: read strictly, before anything is sent anywhere."""
