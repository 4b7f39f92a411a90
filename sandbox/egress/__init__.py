"""What a sandbox can reach: a mirror of package registries for installs, named policies for runs."""
