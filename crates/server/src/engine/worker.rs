//! The thread that owns the model.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use axum::body::Bytes;
use earthmapper::pyramid::{Pyramid, PyramidError, PyramidOptions, TilePicture, TranslatedTile};
use earthmapper::scene::WindowOptions;
use earthmapper::translator::Translator;
use earthmapper::windows::Setting;
use earthmapper::{EarthMapper, Modality};
use earthmapper_geo::picture::{encode_grey, encode_with_holes};
use earthmapper_geo::{Picture, Place, Provenance, Tile, WriteOptions};

use super::{Answer, EngineError, LEFT_OVER, MadeTile, Shared, TileRequest, TileWork, Urgency, Work};
use crate::sources::{Source, TILE_LIMITS};

/// Tiles are made together when they share the tile so many zooms above: sixteen at most.
const BLOCK_ZOOMS: u8 = 2;

/// Seconds that tiles made together should take: a tile is shown when its batch is done.
const BATCH_SECONDS: f64 = 2.0;

/// What the windows that are remembered depend on.
type PyramidKey = (usize, Modality, u64, u8);

/// Runs until the queue is closed and empty.
pub(super) fn run(shared: &Shared, model: &EarthMapper, sources: &[Source], is_ready: impl FnOnce()) {
    let start = Instant::now();
    warm_up(model);
    shared.metrics.worked(0, start.elapsed());
    is_ready();
    let mut kitchen = Kitchen { shared, model, sources, pyramids: HashMap::new(), now: 0 };
    while let Some(next) = next(shared) {
        let start = Instant::now();
        match next {
            Next::Call(call) => {
                if catch_unwind(AssertUnwindSafe(|| call(model))).is_err() {
                    tracing::error!("a request made the model panic");
                }
                shared.metrics.worked(0, start.elapsed());
            }
            Next::Tiles(requests) => {
                let tiles: Vec<Tile> = requests.iter().map(|request| request.tile).collect();
                let made = catch_unwind(AssertUnwindSafe(|| kitchen.make(&requests[0], &tiles)));
                let made = made.unwrap_or_else(|_| {
                    tracing::error!("tiles of {} made the model panic", sources[requests[0].source].id);
                    kitchen.pyramids.clear();
                    vec![Err(EngineError::Failed); tiles.len()]
                });
                shared.metrics.worked(tiles.len(), start.elapsed());
                answer(shared, &requests, made);
            }
        }
    }
}

/// One translation of nothing, so that the first client does not wait for pages and caches.
fn warm_up(model: &EarthMapper) {
    let side = model.tokenizer_config.picture_side as u32;
    let blank = Picture::filled(side, side, [128; 3]);
    for to in Modality::ALL.into_iter().filter(|to| model.transformer.index_of(*to).is_some()) {
        let setting = Setting { place: None, seed: 0, options: model.generation.towards(to) };
        let windows = WindowOptions::default();
        let _ = Translator::new(model).translate(&blank, to, &setting, &windows, &mut |_, _| {});
    }
}

enum Next {
    Call(Box<dyn FnOnce(&EarthMapper) + Send>),
    /// Tiles of one source, seed and block; they are among those running.
    Tiles(Vec<TileRequest>),
}

/// Waits for work; none when there will be no more.
fn next(shared: &Shared) -> Option<Next> {
    let mut queue = shared.queue();
    loop {
        let before = queue.waiting.len();
        queue.waiting.retain_mut(|work| match work {
            Work::Tile(work) => {
                work.waiters.retain(|waiter| !waiter.is_closed());
                !work.waiters.is_empty()
            }
            Work::Call(work) => !(work.is_abandoned)(),
        });
        shared.metrics.dropped(before - queue.waiting.len());
        let is_urgent = |work: &Work| match work {
            Work::Tile(work) => work.urgency == Urgency::Now,
            Work::Call(_) => true,
        };
        let first = queue.waiting.iter().position(is_urgent).or((!queue.waiting.is_empty()).then_some(0));
        let Some(first) = first else {
            if queue.is_closed {
                return None;
            }
            queue = shared.changed.wait(queue).unwrap_or_else(std::sync::PoisonError::into_inner);
            continue;
        };
        return Some(match queue.waiting.remove(first).expect("a position in the queue") {
            Work::Call(work) => Next::Call(work.call),
            Work::Tile(work) => {
                let mut together = vec![work];
                let most = (BATCH_SECONDS / shared.metrics.seconds_per_tile()) as usize;
                let mut i = 0;
                while i < queue.waiting.len() && together.len() < most {
                    match &queue.waiting[i] {
                        Work::Tile(other) if is_neighbour(&together[0].request, &other.request) => {
                            let Some(Work::Tile(other)) = queue.waiting.remove(i) else { unreachable!() };
                            together.push(other);
                        }
                        _ => i += 1,
                    }
                }
                let requests = together.iter().map(|work| work.request.clone()).collect();
                queue.running = together;
                Next::Tiles(requests)
            }
        });
    }
}

fn is_neighbour(one: &TileRequest, other: &TileRequest) -> bool {
    let block = |tile: Tile| tile.ancestor(tile.z().saturating_sub(BLOCK_ZOOMS));
    (one.source, one.to, one.seed, one.tile.z()) == (other.source, other.to, other.seed, other.tile.z())
        && block(one.tile) == block(other.tile)
}

/// Tells everybody who waits, those who came in the meantime as well.
fn answer(shared: &Shared, requests: &[TileRequest], made: Vec<Answer>) {
    let mut queue = shared.queue();
    let running: Vec<TileWork> = std::mem::take(&mut queue.running);
    for work in running {
        let index = requests.iter().position(|request| *request == work.request);
        let made = index.map_or(Err(EngineError::Failed), |index| made[index].clone());
        let mut is_taken = false;
        for waiter in work.waiters {
            is_taken |= waiter.send(made.clone()).is_ok();
        }
        if let Ok(made) = made
            && !is_taken
        {
            queue.left_over.push_back((work.request, made));
            if queue.left_over.len() > LEFT_OVER {
                queue.left_over.pop_front();
            }
        }
    }
}

/// The pyramids whose windows are remembered.
struct Kitchen<'a> {
    shared: &'a Shared,
    model: &'a EarthMapper,
    sources: &'a [Source],
    pyramids: HashMap<PyramidKey, (u64, Pyramid<'a>)>,
    now: u64,
}

impl<'a> Kitchen<'a> {
    /// Makes tiles of one block.
    fn make(&mut self, first: &TileRequest, tiles: &[Tile]) -> Vec<Answer> {
        let sources = self.sources;
        let source = &sources[first.source];
        let Some((layer, _)) = source.translation(first.to) else {
            return vec![Err(EngineError::Missing); tiles.len()];
        };
        let there = |tile: &Tile| layer.reader.contains(*tile).unwrap_or(true);
        let open: Vec<Tile> = tiles.iter().copied().filter(there).collect();
        let pyramid = self.pyramid(first, source);
        if let Err(error) = pyramid.prepare(&open) {
            tracing::error!("source {:?}: {error}", source.id);
            return vec![Err(EngineError::Failed); tiles.len()];
        }
        let made = |tile: &Tile| match open.contains(tile) {
            true => pyramid.tile(*tile),
            false => Err(PyramidError::Vanished(*tile)),
        };
        let made: Vec<Result<TranslatedTile, PyramidError>> = tiles.iter().map(made).collect();
        let label =
            |tile: Tile, picture: &Picture| Label { request: first, source, tile, side: picture.width() };
        tiles
            .iter()
            .zip(made)
            .map(|(tile, made)| match made {
                Ok(made) => self.encoded(&label(*tile, &made.tile.picture), &made),
                Err(PyramidError::Vanished(_)) => Err(EngineError::Missing),
                Err(error) => {
                    tracing::warn!("source {:?}: {tile}: {error}", source.id);
                    Err(EngineError::Failed)
                }
            })
            .collect()
    }

    fn pyramid(&mut self, request: &TileRequest, source: &'a Source) -> &mut Pyramid<'a> {
        let shared = self.shared;
        let options = &shared.options;
        let key = (request.source, request.to, request.seed, request.tile.z());
        self.now += 1;
        if !self.pyramids.contains_key(&key) && self.pyramids.len() >= options.pyramids {
            let oldest = self.pyramids.iter().min_by_key(|(_, (used, _))| *used).map(|(key, _)| *key);
            oldest.and_then(|oldest| self.pyramids.remove(&oldest));
        }
        let model = self.model;
        let (used, pyramid) = self.pyramids.entry(key).or_insert_with(|| {
            let (layer, _) = source.translation(request.to).expect("asked just now");
            let options = PyramidOptions {
                to: request.to,
                seed: request.seed,
                generation: model.generation.towards(request.to),
                seam: source.seam,
                batch_size: options.batch_size,
                remembered: options.windows,
                limits: TILE_LIMITS,
                side: Some(layer.side),
                ground: Some(layer.bounds),
            };
            (0, Pyramid::new(layer.reader.as_ref(), model, options))
        });
        *used = self.now;
        pyramid
    }

    fn encoded(&self, label: &Label, made: &TranslatedTile) -> Answer {
        let TilePicture { picture, holes } = &made.tile;
        let options = WriteOptions { provenance: Some(label.provenance(self.model)), ..Default::default() };
        let encoded = encode_with_holes("png", picture, holes, &options).and_then(|colour| {
            let grey = encode_grey("png", picture.width(), picture.height(), &made.uncertainty, &options)?;
            Ok(MadeTile { picture: Bytes::from(colour), uncertainty: Bytes::from(grey) })
        });
        encoded.map_err(|error| {
            tracing::error!("a tile cannot be encoded: {error}");
            EngineError::Failed
        })
    }
}

/// What a tile says about itself.
struct Label<'a> {
    request: &'a TileRequest,
    source: &'a Source,
    tile: Tile,
    side: u32,
}

impl Label<'_> {
    fn provenance(&self, model: &EarthMapper) -> Provenance {
        let to = self.request.to;
        let place = model
            .config
            .trained_on
            .places_known
            .then(|| Place::new(self.tile.centre(), Some(self.tile.metres_per_pixel(self.side))).ok());
        let task = format!("{} → {to}", to.other());
        let name = Some(self.source.id.clone());
        let options = model.generation.towards(to);
        let mut label = model.config.label(&task, self.request.seed, name, place.flatten(), options);
        label.extra.insert("tile".into(), self.tile.to_string());
        label
    }
}
