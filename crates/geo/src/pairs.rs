//! pairs.
