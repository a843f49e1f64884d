//! The three ports on disk: journal and object files are the truth, sled is index and cache.
