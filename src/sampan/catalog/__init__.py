"""Facts with sources: chips, sites, models, and published runs."""
