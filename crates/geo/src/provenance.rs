//! provenance.
