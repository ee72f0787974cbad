//! From a request for a tile to the bytes of its answer: caches, engine, formats, sizes.

use std::sync::Arc;

use axum::body::Bytes;
use earthmapper::Modality;
use earthmapper::pyramid::TilePicture;
use earthmapper_geo::picture::{Mask, decode_with_holes, encode_picture, encode_with_holes};
use earthmapper_geo::store::TileFormat;
use earthmapper_geo::{Picture, PictureError, Provenance, Tile, WriteOptions};
use sha2::{Digest, Sha256};
use tokio::sync::{Semaphore, oneshot};

use crate::cache::{CacheKey, MemoryCache};
use crate::disk::DiskCache;
use crate::engine::{Engine, EngineError, MadeTile, TileRequest, Urgency};
use crate::metrics::{Found, Metrics};
use crate::sources::{Source, TILE_LIMITS};

/// Tiles of other servers that are fetched at once.
const FETCHES: usize = 16;

/// Which picture of a tile.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Shown {
    /// What the model made.
    Translation,
    /// How undecided it was.
    Uncertainty,
}

/// How large a tile is sent.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Density {
    /// As it is.
    Single,
    /// Twice as many pixels a side, from the four tiles of the next zoom where there are such.
    Double,
}

/// Everything that decides about the bytes of a tile.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Source, direction, seed, and which tile.
    pub request: TileRequest,
    /// Which picture of it.
    pub shown: Shown,
    /// How it is encoded.
    pub format: TileFormat,
    /// How large it is.
    pub density: Density,
}

/// Makes tiles or finds them.
pub struct TileService {
    /// What is served.
    pub sources: Arc<Vec<Source>>,
    /// Who makes tiles.
    pub engine: Engine,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Name of the model.
    pub model: String,
    /// A digest of the model's files.
    pub fingerprint: String,
    memory: MemoryCache,
    disk: Option<DiskCache>,
    /// How many tiles of other servers are fetched at once.
    fetches: Arc<Semaphore>,
}

impl TileService {
    /// A service from its parts.
    pub fn new(
        sources: Arc<Vec<Source>>,
        engine: Engine,
        metrics: Arc<Metrics>,
        (model, fingerprint): (String, String),
        (memory, disk): (MemoryCache, Option<DiskCache>),
    ) -> Self {
        let fetches = Arc::new(Semaphore::new(FETCHES));
        Self { sources, engine, metrics, model, fingerprint, memory, disk, fetches }
    }

    /// The name of an answer: a digest of everything that its bytes depend on.
    pub fn key(&self, wanted: &Wanted) -> CacheKey {
        let TileRequest { source, to, seed, tile } = &wanted.request;
        let source = &self.sources[*source];
        // The zooms decide of what a tile of twice the side is made.
        let layer = source.original(to.other()).map(|layer| (&layer.stamp, layer.translated));
        let text = format!(
            "{} {} {:?} {} {layer:?} {} {to} {seed} {tile} {:?} {} {:?}",
            env!("CARGO_PKG_VERSION"),
            self.fingerprint,
            source.id,
            source.seam,
            self.model,
            wanted.shown,
            wanted.format,
            wanted.density,
        );
        digest(text.as_bytes()).into()
    }

    /// The bytes of a tile, from the caches or made.
    ///
    /// # Errors
    /// Every [`EngineError`].
    pub async fn get(self: &Arc<Self>, wanted: &Wanted) -> Result<Bytes, EngineError> {
        if let Some(bytes) = self.kept(wanted).await {
            return Ok(bytes);
        }
        let picture = match wanted.density {
            Density::Single if wanted.format == TileFormat::Png => return self.base(wanted).await,
            Density::Single => decoded(self.base(wanted).await?).await?,
            Density::Double => self.double(wanted).await?,
        };
        let label = self.label(&wanted.request);
        let format = wanted.format;
        let bytes = tokio::task::spawn_blocking(move || encoded(&picture, format, label)).await;
        let bytes = bytes.map_err(|_| EngineError::Failed)??;
        self.keep(self.key(wanted), bytes.clone()).await;
        Ok(bytes)
    }

    /// The tile as PNG, as the model made it.
    async fn base(self: &Arc<Self>, wanted: &Wanted) -> Result<Bytes, EngineError> {
        let png = Wanted { format: TileFormat::Png, density: Density::Single, ..wanted.clone() };
        if let Some(bytes) = self.kept(&png).await {
            return Ok(bytes);
        }
        self.metrics.looked_up(Found::Nowhere);
        self.fetch_around(&wanted.request).await;
        let made = self.engine.tile(wanted.request.clone()).await?;
        self.keep_made(&wanted.request, &made).await;
        Ok(match wanted.shown {
            Shown::Translation => made.picture,
            Shown::Uncertainty => made.uncertainty,
        })
    }

    /// Has a tile of another server and its neighbours fetched, so that the model does not wait for them. What does not
    /// come is told of when the tile is made.
    async fn fetch_around(self: &Arc<Self>, request: &TileRequest) {
        let TileRequest { source, to, tile, .. } = *request;
        let Some(layer) = self.sources[source].original(to.other()).filter(|layer| layer.is_remote) else {
            return;
        };
        let around = (-1..=1).flat_map(|down| (-1..=1).map(move |right| (right, down)));
        let around = around.filter_map(|(right, down)| {
            let (x, y) = (tile.x().checked_add_signed(right)?, tile.y().checked_add_signed(down)?);
            Tile::new(tile.z(), x, y).ok().filter(|tile| layer.covers(*tile, layer.stored))
        });
        let mut fetching = tokio::task::JoinSet::new();
        for tile in around {
            let Ok(place) = self.fetches.clone().acquire_owned().await else { return };
            let service = self.clone();
            fetching.spawn_blocking(move || {
                if let Some(layer) = service.sources[source].original(to.other()) {
                    let _ = layer.reader.read(tile);
                }
                drop(place);
            });
        }
        while fetching.join_next().await.is_some() {}
    }

    /// A tile of twice the side.
    async fn double(self: &Arc<Self>, wanted: &Wanted) -> Result<TilePicture, EngineError> {
        let TileRequest { source, to, tile, .. } = &wanted.request;
        let (layer, zooms) = self.sources[*source].translation(*to).ok_or(EngineError::Missing)?;
        let children =
            tile.children().filter(|children| children.iter().all(|child| layer.covers(*child, zooms)));
        let part = |tile: Tile| Wanted {
            request: TileRequest { tile, ..wanted.request.clone() },
            format: TileFormat::Png,
            density: Density::Single,
            ..wanted.clone()
        };
        if let Some(children) = children {
            let wanted = children.map(part);
            let [a, b, c, d] = &wanted;
            // Together, so that the engine makes them together.
            let parts = tokio::join!(self.base(a), self.base(b), self.base(c), self.base(d));
            let parts = [parts.0, parts.1, parts.2, parts.3];
            if !parts.iter().any(|part| matches!(part, Err(EngineError::Missing))) {
                let mut pictures: Vec<TilePicture> = Vec::new();
                for part in parts {
                    pictures.push(decoded(part?).await?);
                }
                let side = pictures[0].picture.width();
                let mut picture = Picture::filled(2 * side, 2 * side, [0; 3]);
                for (index, part) in pictures.iter_mut().enumerate() {
                    let (right, down) = (index as u32 % 2, index as u32 / 2);
                    *part = part.resized(side);
                    picture.paste(&part.picture, right * side, down * side);
                }
                let is_hole = |x: u32, y: u32| {
                    let part = &pictures[(2 * (y / side) + x / side) as usize];
                    part.holes.is_hole(x % side, y % side)
                };
                return Ok(TilePicture { picture, holes: Mask::drawn(2 * side, 2 * side, is_hole) });
            }
        }
        let tile = decoded(self.base(&part(*tile)).await?).await?;
        Ok(tile.resized(2 * tile.picture.width()))
    }

    /// What the caches have.
    async fn kept(self: &Arc<Self>, wanted: &Wanted) -> Option<Bytes> {
        let key = self.key(wanted);
        if let Some(bytes) = self.memory.get(&key) {
            self.metrics.looked_up(Found::Memory);
            return Some(bytes);
        }
        self.disk.as_ref()?;
        let (service, name) = (self.clone(), key.clone());
        let read = move || service.disk.as_ref().and_then(|disk| disk.get(&name));
        let bytes = tokio::task::spawn_blocking(read).await.ok()??;
        self.metrics.looked_up(Found::Disk);
        self.memory.put(key, bytes.clone());
        Some(bytes)
    }

    async fn keep(self: &Arc<Self>, key: CacheKey, bytes: Bytes) {
        self.memory.put(key.clone(), bytes.clone());
        if self.disk.is_some() {
            let service = self.clone();
            let write = move || {
                if let Some(disk) = &service.disk {
                    disk.put(&key, &bytes);
                }
            };
            let _ = tokio::task::spawn_blocking(write).await;
        }
    }

    async fn keep_made(self: &Arc<Self>, request: &TileRequest, made: &MadeTile) {
        for (shown, bytes) in [(Shown::Translation, &made.picture), (Shown::Uncertainty, &made.uncertainty)] {
            let (format, density) = (TileFormat::Png, Density::Single);
            let key = self.key(&Wanted { request: request.clone(), shown, format, density });
            self.keep(key, bytes.clone()).await;
        }
    }

    /// For jobs, which wait on a thread of their own: the tile as PNG, from the caches, or a promise of it.
    ///
    /// # Errors
    /// [`EngineError::Stopping`].
    pub fn promised(&self, request: &TileRequest) -> Result<Promised, EngineError> {
        let (format, density) = (TileFormat::Png, Density::Single);
        let wanted = Wanted { request: request.clone(), shown: Shown::Translation, format, density };
        let key = self.key(&wanted);
        let kept = self.memory.get(&key).or_else(|| self.disk.as_ref()?.get(&key));
        Ok(match kept {
            Some(bytes) => Promised::Kept(bytes),
            None => Promised::Coming(self.engine.submit(request.clone(), Urgency::Whenever)?),
        })
    }

    /// What a picture says about itself after it was decoded and encoded again.
    pub fn label(&self, request: &TileRequest) -> Provenance {
        let to = request.to;
        let mut label = Provenance::new(self.model.clone(), format!("{} → {to}", to.other()));
        label.seed = Some(request.seed);
        label.source = Some(self.sources[request.source].id.clone());
        label.extra.insert("tile".into(), request.tile.to_string());
        label
    }

    /// Entries and bytes in memory.
    pub fn cached(&self) -> (usize, usize) {
        self.memory.size()
    }

    /// Position of a source with a translation toward `to`.
    pub fn find(&self, id: &str, to: Modality) -> Option<usize> {
        self.sources.iter().position(|source| source.id == id && source.translation(to).is_some())
    }
}

/// A tile for a job.
pub enum Promised {
    /// It was there.
    Kept(Bytes),
    /// It will be.
    Coming(oneshot::Receiver<Result<MadeTile, EngineError>>),
}

/// The first 16 bytes of a digest, in hexadecimal.
pub fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

async fn decoded(bytes: Bytes) -> Result<TilePicture, EngineError> {
    let decode = move || decode_with_holes(&bytes, "tile", &TILE_LIMITS);
    match tokio::task::spawn_blocking(decode).await {
        Ok(Ok((picture, holes))) => Ok(TilePicture { picture, holes }),
        _ => Err(EngineError::Failed),
    }
}

/// A tile as a file; JPEG, which knows no transparency, shows white in its holes.
///
/// # Errors
/// When the encoder refuses.
pub fn encoded_tile(
    tile: &TilePicture,
    format: TileFormat,
    options: &WriteOptions,
) -> Result<Vec<u8>, PictureError> {
    match format {
        TileFormat::Jpeg => encode_picture(format.extension(), &tile.over_white(), options),
        _ => encode_with_holes(format.extension(), &tile.picture, &tile.holes, options),
    }
}

/// A tile as a file, with its label.
///
/// # Errors
/// [`EngineError::Failed`] when the encoder refuses.
pub fn encoded(tile: &TilePicture, format: TileFormat, label: Provenance) -> Result<Bytes, EngineError> {
    let options = WriteOptions { provenance: Some(label), ..Default::default() };
    encoded_tile(tile, format, &options).map(Bytes::from).map_err(|error| {
        tracing::error!("a picture cannot be encoded: {error}");
        EngineError::Failed
    })
}
