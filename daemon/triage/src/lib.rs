//! Scores become a finding with band, priority and reader.
