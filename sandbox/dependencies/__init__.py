"""Dependencies: installed in a sandbox of their own, frozen into a layer that runs see read-only."""
