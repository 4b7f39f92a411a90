"""The contracts: Solidity sources, and a short loader for their checked-in ABI and bytecode."""
