//! Model bundles, admission and the engines that run them.
