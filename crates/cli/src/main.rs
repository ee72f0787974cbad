//! The `earthmapper` program.

fn main() {}
