"""What the services need from the outside, in their own words; adapters fulfil it."""
