//! The outbox reaches the archive: retry, back-off, findings before pixels.
