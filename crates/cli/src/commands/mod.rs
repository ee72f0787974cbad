//! One file per command.

pub mod completions;
pub mod dataset;
pub mod doctor;
pub mod evaluate;
pub mod generate;
pub mod inpaint;
pub mod man;
pub mod model;
pub mod outpaint;
pub mod render;
pub mod serve;
pub mod sweep;
pub mod tile;
pub mod train;
pub mod translate;
