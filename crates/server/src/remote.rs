//! Tiles of other servers: from hosts that the configuration allows, and none unless it does.
//!
//! The address is the configuration's, with the tile's numbers put in; nothing of a request gets into it. Redirects are
//! not followed, so an allowed host cannot send us on to another.

use std::collections::{HashMap, HashSet, VecDeque};
use std::io;
use std::ops::{ControlFlow, RangeInclusive};
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::http::Uri;
use earthmapper_geo::store::{EncodedTile, StoreError, TileFormat, TileMetadata, TileReader};
use earthmapper_geo::{BoundingBox, Tile};

/// The most bytes of a tile.
const MAX_BYTES: u64 = 8 << 20;

/// Tiles that are remembered, so that neighbours and originals do not ask again.
const REMEMBERED: usize = 256;

/// For how long they are.
const KEPT: Duration = Duration::from_secs(300);

/// For how long a server that does not answer is left alone: the model must not wait for it tile by tile.
const REST: Duration = Duration::from_secs(5);

/// The address of a tile with `{z}`, `{x}` and `{y}` in place of its numbers.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Template {
    text: String,
    authority: String,
}

impl Template {
    /// Understands an address.
    ///
    /// # Errors
    /// What is wrong with it, and the cure.
    pub fn parse(text: &str) -> Result<Self, String> {
        if !(text.starts_with("http://") || text.starts_with("https://")) {
            return Err("is an address of a kind that is not read; use https:// or http://".into());
        }
        let mut filled = text.to_owned();
        for number in ["{z}", "{x}", "{y}"] {
            if filled.matches(number).count() != 1 {
                return Err(format!("must hold {number} once, where the tile's number stands"));
            }
            filled = filled.replace(number, "0");
        }
        if filled.contains(['{', '}']) {
            return Err("has other braces than those of {z}, {x} and {y}".into());
        }
        let uri = filled.parse::<Uri>().map_err(|error| format!("is no address: {error}"))?;
        let authority = uri.authority().map(|authority| authority.as_str().to_ascii_lowercase());
        let authority = authority.filter(|authority| !authority.contains('@'));
        let authority = authority.ok_or("must name a host, without a user or a password")?;
        // A number in the host would let tiles choose whom we ask.
        let is_whole = text.split("://").nth(1).is_some_and(|rest| {
            rest.get(..authority.len()).is_some_and(|start| start.eq_ignore_ascii_case(&authority))
        });
        if !is_whole {
            return Err("must have its numbers behind the host".into());
        }
        Ok(Self { text: text.to_owned(), authority })
    }

    /// The host, with its port if one is named, in small letters.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    fn address(&self, tile: Tile) -> String {
        let numbers = [("{z}", u32::from(tile.z())), ("{x}", tile.x()), ("{y}", tile.y())];
        numbers.iter().fold(self.text.clone(), |text, (name, number)| text.replace(name, &number.to_string()))
    }
}

/// Tiles of another server.
pub struct RemoteReader {
    template: Template,
    path: PathBuf,
    agent: ureq::Agent,
    metadata: TileMetadata,
    bounds: BoundingBox,
    zooms: RangeInclusive<u8>,
    seen: Mutex<Seen>,
    /// A tile that was being fetched is there, or is not.
    changed: Condvar,
}

#[derive(Default)]
struct Seen {
    tiles: HashMap<Tile, (Option<EncodedTile>, Instant)>,
    /// The oldest first.
    order: VecDeque<Tile>,
    fetching: HashSet<Tile>,
    failed: Option<Instant>,
}

impl RemoteReader {
    /// Tiles on some ground at some zooms, each waited for at most `patience`. Nothing is asked for yet.
    pub fn new(
        template: Template,
        bounds: BoundingBox,
        zooms: RangeInclusive<u8>,
        patience: Duration,
    ) -> Self {
        let agent = ureq::Agent::config_builder()
            .timeout_global(Some(patience))
            .max_redirects(0)
            .http_status_as_error(false)
            .proxy(None)
            .user_agent(concat!("earthmapper/", env!("CARGO_PKG_VERSION")))
            .build()
            .into();
        let mut metadata = TileMetadata::new(template.authority.clone(), TileFormat::Png);
        metadata.bounds = Some(bounds);
        (metadata.min_zoom, metadata.max_zoom) = (Some(*zooms.start()), Some(*zooms.end()));
        Self {
            path: PathBuf::from(&template.text),
            template,
            agent,
            metadata,
            bounds,
            zooms,
            seen: Mutex::default(),
            changed: Condvar::new(),
        }
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_ours(&self, tile: Tile) -> bool {
        self.zooms.contains(&tile.z()) && self.bounds.tiles(tile.z()).is_ok_and(|all| all.contains(tile))
    }

    fn unread(&self, cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> StoreError {
        StoreError::Io { path: self.path.clone(), cause: io::Error::other(cause) }
    }

    /// Asks the other server. An error that another tile would meet as well comes with `true`.
    fn fetch(&self, tile: Tile) -> Result<Option<EncodedTile>, (StoreError, bool)> {
        let unread = |error: ureq::Error| (self.unread(error), true);
        let mut answer = self.agent.get(self.template.address(tile)).call().map_err(unread)?;
        match answer.status().as_u16() {
            200 => {}
            204 | 404 | 410 => return Ok(None),
            status => {
                let text = format!("tile {tile}: the other server answers {status}");
                return Err((self.unread(text), status == 429 || status >= 500));
            }
        }
        let bytes = match answer.body_mut().with_config().limit(MAX_BYTES).read_to_vec() {
            Ok(bytes) => bytes,
            Err(ureq::Error::BodyExceedsLimit(_)) => {
                let too_big = StoreError::TileTooBig { path: self.path.clone(), tile, limit: MAX_BYTES };
                return Err((too_big, false));
            }
            Err(error) => return Err(unread(error)),
        };
        match TileFormat::of_bytes(&bytes) {
            Some(format) => Ok(Some(EncodedTile { format, bytes })),
            None => {
                let detail = "is not a PNG, JPEG or WebP picture".to_owned();
                Err((StoreError::BadTile { path: self.path.clone(), tile, detail }, false))
            }
        }
    }
}

impl TileReader for RemoteReader {
    fn path(&self) -> &Path {
        &self.path
    }

    fn metadata(&self) -> &TileMetadata {
        &self.metadata
    }

    fn read(&self, tile: Tile) -> Result<Option<EncodedTile>, StoreError> {
        if !self.is_ours(tile) {
            return Ok(None);
        }
        let mut seen = self.seen();
        while seen.fetching.contains(&tile) {
            seen = self.changed.wait(seen).unwrap_or_else(PoisonError::into_inner);
        }
        if let Some((kept, time)) = seen.tiles.get(&tile)
            && time.elapsed() < KEPT
        {
            return Ok(kept.clone());
        }
        if seen.failed.is_some_and(|time| time.elapsed() < REST) {
            return Err(self.unread("the other server did not answer just now"));
        }
        seen.fetching.insert(tile);
        drop(seen);
        let fetched = self.fetch(tile);
        let mut seen = self.seen();
        seen.fetching.remove(&tile);
        self.changed.notify_all();
        match fetched {
            Ok(found) => {
                seen.keep(tile, found.clone());
                Ok(found)
            }
            Err((error, is_general)) => {
                if is_general {
                    seen.failed = Some(Instant::now());
                }
                Err(error)
            }
        }
    }

    fn contains(&self, tile: Tile) -> Result<bool, StoreError> {
        self.read(tile).map(|found| found.is_some())
    }

    /// Shows the tiles of the ground; whether the other server has them is not asked.
    fn visit(&self, visitor: &mut dyn FnMut(Tile) -> ControlFlow<()>) -> Result<(), StoreError> {
        for zoom in self.zooms.clone() {
            let Ok(cover) = self.bounds.tiles(zoom) else { continue };
            for tile in cover.iter() {
                if visitor(tile).is_break() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}

impl Seen {
    fn keep(&mut self, tile: Tile, found: Option<EncodedTile>) {
        self.failed = None;
        if self.tiles.insert(tile, (found, Instant::now())).is_none() {
            self.order.push_back(tile);
        }
        while self.order.len() > REMEMBERED {
            let oldest = self.order.pop_front().expect("there are some");
            self.tiles.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_understood_or_refused() {
        let template = Template::parse("https://Tiles.example.org:8443/a/{z}/{x}/{y}.jpg?key=1").unwrap();
        assert_eq!(template.authority(), "tiles.example.org:8443");
        let tile = "3/4/5".parse().unwrap();
        assert_eq!(template.address(tile), "https://Tiles.example.org:8443/a/3/4/5.jpg?key=1");
        for (text, word) in [
            ("ftp://a/{z}/{x}/{y}", "kind"),
            ("https://a/{z}/{x}", "{y}"),
            ("https://a/{z}/{z}/{x}/{y}", "{z}"),
            ("https://{x}.a/{z}/{y}", "behind"),
            ("https://a:{z}/{x}/{y}", "behind"),
            ("https://user@a/{z}/{x}/{y}", "user"),
            ("https:///{z}/{x}/{y}", "is no address"),
            ("https://a/{z}/{x}/{y}/{q}", "other braces"),
        ] {
            let error = Template::parse(text).unwrap_err();
            assert!(error.contains(word), "{text}: {error}");
        }
    }
}
