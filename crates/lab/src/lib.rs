//! Training, frozen networks, losses and metrics.

pub mod data;
pub mod metrics;
pub mod nets;
pub mod progress;
pub mod run;
