//! lonlat.
