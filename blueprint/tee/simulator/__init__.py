"""A TDX platform, a KMS and a guest without hardware: real cryptography under a root that is not Intel's."""
