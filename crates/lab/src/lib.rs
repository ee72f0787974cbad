//! Training, frozen networks, losses and metrics.

pub mod data;
pub mod evaluate;
pub mod export;
pub mod import;
pub mod losses;
pub mod metrics;
pub mod nets;
pub mod optimiser;
pub mod progress;
pub mod run;
pub mod semantic_infusion;
pub mod session;
pub mod start_from_data;
pub mod sweep;
pub mod token_cache;
pub mod train;
pub mod train_tokenizer;
