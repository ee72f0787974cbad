//! The thread that does the jobs, one after another.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::Bytes;
use earthmapper::pyramid::TilePicture;
use earthmapper_geo::picture::decode_with_holes;
use earthmapper_geo::store::{
    Existing, StoreError, TileFormat, TileMetadata, TileWriter, copy_tiles, create_tiles, open_tiles,
};
use earthmapper_geo::{Tile, TileError};

use super::{Entry, Job, JobState, Shared, lock};
use crate::engine::{EngineError, TileRequest};
use crate::sources::TILE_LIMITS;
use crate::tiles::{Promised, encoded};

/// Tiles are asked for together when they share the tile so many zooms above.
const BLOCK_ZOOMS: u8 = 2;

/// How a job ended.
enum End {
    Done {
        failed: u64,
    },
    Cancelled,
    /// The server stops; the job goes on later.
    Rests,
}

#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Tile(#[from] TileError),
    #[error("its source is not served any more")]
    NoSource,
}

/// Does jobs until the server stops.
pub(super) fn run(shared: &Shared) {
    while let Some(job) = next(shared) {
        let entry = {
            let mut job = lock(&job);
            shared.settle(&mut job, JobState::Running, 0);
            job.entry.clone()
        };
        let end = make(shared, &job, &entry);
        let mut job = lock(&job);
        match end {
            Ok(End::Done { failed }) => shared.settle(&mut job, JobState::Done, failed),
            Ok(End::Cancelled) => {
                shared.journal.remove_tiles(&entry.id);
                shared.settle(&mut job, JobState::Cancelled, 0);
            }
            Ok(End::Rests) => return,
            Err(error) => {
                tracing::error!("job {}: {error}", entry.id);
                shared.settle(&mut job, JobState::Failed, 0);
            }
        }
        drop(job);
        shared.tidy();
    }
}

/// Waits for a job; none when the server stops.
fn next(shared: &Shared) -> Option<Arc<Mutex<Job>>> {
    let mut jobs = shared.jobs();
    loop {
        if shared.is_stopping.load(Ordering::Relaxed) {
            return None;
        }
        if let Some(job) = jobs.values().find(|job| !lock(job).entry.state.is_final()) {
            return Some(job.clone());
        }
        // A moment's sleep at most, should a word have been missed.
        let waited = shared.changed.wait_timeout(jobs, Duration::from_secs(1));
        jobs = waited.unwrap_or_else(PoisonError::into_inner).0;
    }
}

fn make(shared: &Shared, job: &Mutex<Job>, entry: &Entry) -> Result<End, Failure> {
    let result = shared.journal.result(&entry.id);
    if result.exists() {
        // Killed between the result and the word about it.
        shared.journal.remove_tiles(&entry.id);
        return Ok(End::Done { failed: 0 });
    }
    let source = shared.tiles.find(&entry.request.source, entry.request.to).ok_or(Failure::NoSource)?;
    let tiles = tiles(shared, entry, source)?;
    let format = TileFormat::from(entry.request.format);
    let path = shared.journal.tiles(&entry.id);
    let metadata = metadata(shared, entry, source);
    let mut writer = create_tiles(&path, metadata.clone(), Existing::Continue)?;
    {
        let job = lock(job);
        job.total.store(tiles.len() as u64, Ordering::Relaxed);
        job.made.store(writer.tiles()?.len() as u64, Ordering::Relaxed);
    }
    let (mut failed, mut rests) = (0, false);
    for block in tiles.chunk_by(|a, b| block(*a) == block(*b)) {
        if lock(job).is_cancelled.load(Ordering::Relaxed) {
            drop(writer);
            return Ok(End::Cancelled);
        }
        rests = shared.is_stopping.load(Ordering::Relaxed);
        match rests {
            true => break,
            false => match make_block(shared, job, entry, (source, format), block, writer.as_mut())? {
                Some(count) => failed += count,
                None => {
                    rests = true;
                    break;
                }
            },
        }
    }
    if rests {
        writer.flush()?;
        return Ok(End::Rests);
    }
    writer.finish()?;
    let reader = open_tiles(&path)?;
    let mut archive = create_tiles(&result, metadata, Existing::Replace)?;
    copy_tiles(reader.as_ref(), archive.as_mut())?;
    archive.finish()?;
    drop(reader);
    shared.journal.remove_tiles(&entry.id);
    Ok(End::Done { failed })
}

/// Makes what is missing of a block; how many tiles failed, or none when the server stops.
fn make_block(
    shared: &Shared,
    job: &Mutex<Job>,
    entry: &Entry,
    (source, format): (usize, TileFormat),
    block: &[Tile],
    writer: &mut dyn TileWriter,
) -> Result<Option<u64>, Failure> {
    let (to, seed) = (entry.request.to, entry.request.seed);
    let mut promises = Vec::new();
    for &tile in block {
        if writer.contains(tile)? {
            continue;
        }
        let request = TileRequest { source, to, seed, tile };
        match shared.tiles.promised(&request) {
            Ok(promise) => promises.push((request, promise)),
            Err(_) => return Ok(None),
        }
    }
    let mut failed = 0;
    for (request, promise) in promises {
        let made = match promise {
            Promised::Kept(bytes) => Ok(bytes),
            Promised::Coming(answer) => match answer.blocking_recv() {
                Ok(made) => made.map(|made| made.picture),
                // Taken out of the queue because the server stops, or lost in a panic.
                Err(_) if shared.is_stopping.load(Ordering::Relaxed) => return Ok(None),
                Err(_) => Err(EngineError::Failed),
            },
        };
        match made.and_then(|png| in_format(shared, &request, png, format)) {
            Ok(bytes) => {
                writer.write(request.tile, &bytes)?;
                lock(job).made.fetch_add(1, Ordering::Relaxed);
            }
            // Holes in the source are holes in the result.
            Err(EngineError::Missing) => {
                lock(job).total.fetch_sub(1, Ordering::Relaxed);
            }
            Err(EngineError::Stopping) => return Ok(None),
            Err(_) => failed += 1,
        }
    }
    Ok(Some(failed))
}

fn in_format(
    shared: &Shared,
    request: &TileRequest,
    png: Bytes,
    format: TileFormat,
) -> Result<Bytes, EngineError> {
    if format == TileFormat::Png {
        return Ok(png);
    }
    let (picture, holes) = decode_with_holes(&png, "tile", &TILE_LIMITS).map_err(|_| EngineError::Failed)?;
    encoded(&TilePicture { picture, holes }, format, shared.tiles.label(request))
}

/// The tiles of a job, block by block.
fn tiles(shared: &Shared, entry: &Entry, source: usize) -> Result<Vec<Tile>, Failure> {
    let request = &entry.request;
    let (layer, _) = shared.tiles.sources[source].translation(request.to).ok_or(Failure::NoSource)?;
    let mut all = Vec::new();
    for zoom in request.min_zoom..=request.max_zoom {
        let (asked, there) = (request.bbox.tiles(zoom)?, layer.bounds.tiles(zoom)?);
        // Through the smaller of both: the other may be the whole world.
        let (small, large) = if asked.len() < there.len() { (asked, there) } else { (there, asked) };
        let mut tiles: Vec<Tile> = small.iter().filter(|tile| large.contains(*tile)).collect();
        tiles.sort_by_key(|tile| (block(*tile), *tile));
        all.extend(tiles);
    }
    Ok(all)
}

fn block(tile: Tile) -> Option<Tile> {
    tile.ancestor(tile.z().saturating_sub(BLOCK_ZOOMS))
}

/// What the result says about itself: above all, that it is synthetic.
fn metadata(shared: &Shared, entry: &Entry, source: usize) -> TileMetadata {
    let source = &shared.tiles.sources[source];
    let to = entry.request.to;
    let name = format!("{} ({to})", source.name);
    let mut metadata = TileMetadata::new(name, entry.request.format.into());
    let model = &shared.tiles.model;
    metadata.description = Some(format!("Synthetic: made from other tiles by the trained model {model}."));
    metadata.attribution = Some(source.attribution(to, model));
    metadata
}
