//! Datasets of pairs: made from imagery and maps ([`make`](fn@make)), filtered ([`Filters`]), split so that no two
//! splits touch ([`SplitOptions`]), and inspected ([`check`](fn@check), [`stats`](fn@stats)).
//!
//! | part | holds |
//! |---|---|
//! | [`make`](fn@make), [`MakeOptions`], [`MapSource`] | pairs cut from tile stores, rasters and drawn maps, resumable |
//! | [`Filters`], [`Rule`], [`Measures`] | which pairs are left out, and what was measured of each |
//! | [`Shift`], [`find_shift`] | by how much a photograph lies beside its map |
//! | [`SplitOptions`], [`assign`], [`split_dataset`] | training, validation and test by blocks of ground with a buffer |
//! | [`Manifest`], [`PairRecord`] | the file `manifest.jsonl`, which training reads |
//! | [`check`](fn@check), [`Problem`] | everything that is wrong with a dataset |
//! | [`open_source`], [`SourceTiles`] | a source of any kind as tiles of web Mercator |
//! | [`stats`](fn@stats), [`DatasetStats`] | counts, places, colours and sheets, as one page of HTML |
//!
//! A dataset is a folder: `manifest.jsonl`, `rejected.jsonl`, and pairs side by side (photograph left, map right) as PNG
//! in folders of a thousand. While it is made it holds `making.jsonl` instead of a manifest.

mod cell;
mod check;
mod drawn;
mod error;
mod filter;
mod ground;
mod journal;
mod make;
mod manifest;
mod map;
mod options;
mod page;
mod resample;
mod sheet;
mod shift;
mod split;
mod stats;
mod tiles;
mod world;

pub use check::{Problem, check};
pub use drawn::drawn_maps;
pub use error::DatasetError;
pub use filter::{Filters, Limit, Measures, Rule, measure};
pub use make::{Progress, make};
pub use manifest::{Credit, MANIFEST, Manifest, ManifestHeader, PairRecord, REJECTED, Report, SourceCredit};
pub use map::{Draw, MapError, MapSource, no_drawn_maps};
pub use options::{Grid, MakeOptions, Registration, SourceOptions, SourcePair};
pub use sheet::{alignment_sheet, contact_sheet};
pub use shift::{Shift, find_shift};
pub use split::{Assignment, HoldOut, Split, SplitError, SplitOptions, assign, split_dataset};
pub use stats::{ChannelStats, DatasetStats, stats};
pub use tiles::{SourceTiles, open_source};
