"""Engine environments: isolated virtual environments made by uv from pinned sets."""
