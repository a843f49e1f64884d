//! The sandboxed process that joins decode, preprocess and infer, and the client that restarts it.
