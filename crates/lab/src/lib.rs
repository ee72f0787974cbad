//! Training, frozen networks, losses and metrics.

pub mod data;
pub mod losses;
pub mod metrics;
pub mod nets;
pub mod optimiser;
pub mod progress;
pub mod run;
pub mod session;
pub mod train_tokenizer;
