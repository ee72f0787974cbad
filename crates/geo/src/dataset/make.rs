//! Cutting, measuring and writing pairs.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::cell::{Cell, Frame, RasterFrame, crs_error, nearest_zoom};
use super::error::DatasetError;
use super::filter::{Filters, Rule, measure};
use super::ground::{Ground, Kind, open_raster};
use super::journal::{JOURNAL, Journal, Outcome, Task};
use super::manifest::{
    MANIFEST, Manifest, ManifestHeader, PairRecord, REJECTED, Report, SourceCredit, json_line,
};
use super::map::Draw;
use super::options::{Grid, MakeOptions, Registration, SourcePair};
use super::resample::Patch;
use crate::files::{WriteError, atomic_write, remove_leftovers};
use crate::picture::{Mask, Picture, WriteOptions, encode_picture};
use crate::raster::Locator;
use crate::store::{Existing, MAX_LISTED_TILES};
use crate::tile::Tile;

/// Pairs per folder.
const SHARD: usize = 1000;

/// Squares that are worked on between two notes in the journal, and two calls of `progress`.
const BATCH: usize = 64;

/// How far making has come.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Progress {
    /// Squares of the grid that were looked at.
    pub done: usize,
    /// Squares to look at.
    pub total: usize,
    /// Pairs written.
    pub kept: usize,
}

/// Makes a dataset in `folder`, whose parent must be there.
///
/// Squares are worked on by all cores, batch by batch; after each, `progress` may break, which gives
/// [`DatasetError::Interrupted`]. Whatever stops it, a later call with [`Existing::Continue`] and the same options goes
/// on where it stopped, and the dataset is byte for byte what it would have been. The manifest appears at the end, whole.
/// A dataset that is finished is left alone. Datasets are not replaced as a whole ([`Existing::Replace`]).
///
/// `draw` opens maps that are drawn, and gives none for options that name a raster or a tile store
/// ([`no_drawn_maps`](super::no_drawn_maps)).
///
/// # Errors
///
/// Every [`DatasetError`]. Pairs of unreadable tiles are noted and passed over within `skip_limit`.
pub fn make(
    folder: impl AsRef<Path>,
    options: &MakeOptions,
    draw: Draw<'_>,
    existing: Existing,
    progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
) -> Result<Report, DatasetError> {
    let folder = folder.as_ref();
    options.check()?;
    if let Some(report) = finished(folder, options, existing)? {
        return Ok(report);
    }
    let sources = options.sources.iter().map(|source| Prepared::open(source, draw));
    let sources = sources.collect::<Result<Vec<_>, _>>()?;
    let cells: Vec<(&Prepared, Cell)> =
        sources.iter().flat_map(|source| source.cells.iter().map(move |cell| (source, *cell))).collect();
    if !folder.is_dir() {
        fs::create_dir(folder).map_err(|cause| no_folder(folder, cause))?;
    }
    let names = cells.iter().map(|(source, cell)| source.name(*cell));
    let task = Task { options: options.clone(), cells: cells.len(), digest: digest(names) };
    let (mut journal, mut outcomes) = Journal::open(folder, &task)?;
    clear(folder)?;

    let mut kept = outcomes.iter().filter(|outcome| matches!(outcome, Outcome::Kept(_))).count();
    let mut skipped = Skipped::new(folder, options, cells.len());
    outcomes.iter().try_for_each(|outcome| skipped.see(outcome))?;
    loop {
        let (done, total) = (outcomes.len(), cells.len());
        if progress(Progress { done, total, kept }).is_break() {
            return Err(DatasetError::Interrupted { folder: folder.to_owned(), done, total });
        }
        if done >= total {
            break;
        }
        let batch = &cells[done..total.min(done + BATCH)];
        let made: Vec<Result<Made, DatasetError>> =
            batch.par_iter().map(|(source, cell)| source.pair(*cell, options)).collect();
        let mut noted = Vec::with_capacity(made.len());
        for (index, made) in made.into_iter().enumerate() {
            let Made { mut outcome, png } = made?;
            if let (Outcome::Kept(record), Some(png)) = (&mut outcome, png) {
                record.file = format!("pairs/{:05}/{}.png", (done + index) / SHARD, record.name);
                write_pair(&record.path(folder), &png)?;
                kept += 1;
            }
            noted.push(outcome);
        }
        journal.note(&noted)?;
        noted.iter().try_for_each(|outcome| skipped.see(outcome))?;
        outcomes.append(&mut noted);
    }
    let credits = sources.iter().map(Prepared::credit).collect();
    finish(folder, options, credits, outcomes)
}

/// The report of a dataset that is finished already; none when there is work to do.
fn finished(
    folder: &Path,
    options: &MakeOptions,
    existing: Existing,
) -> Result<Option<Report>, DatasetError> {
    let not_continued =
        |reason, cure| Err(DatasetError::NotContinued { folder: folder.to_owned(), reason, cure });
    let is_there = match fs::read_dir(folder) {
        Ok(mut entries) => entries.next().is_some(),
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => false,
        Err(cause) => return Err(DatasetError::Io { path: folder.to_owned(), cause }),
    };
    if !is_there {
        return Ok(None);
    }
    let (has_journal, has_manifest) = (folder.join(JOURNAL).is_file(), folder.join(MANIFEST).is_file());
    match existing {
        Existing::Refuse => Err(DatasetError::Exists { folder: folder.to_owned() }),
        Existing::Replace => {
            not_continued("is not replaced as a whole", "remove it, or choose another folder")
        }
        Existing::Continue if has_journal => Ok(None),
        Existing::Continue if has_manifest => {
            let header = Manifest::read(folder)?.header;
            match header.report.filter(|_| header.options.as_ref() == Some(options)) {
                Some(report) => Ok(Some(report)),
                None => not_continued(
                    "was made with other options",
                    "give the same ones, or choose another folder",
                ),
            }
        }
        Existing::Continue => not_continued("is no dataset", "choose another folder"),
    }
}

/// An open source and its squares.
struct Prepared {
    name: String,
    imagery: Ground,
    map: Ground,
    frame: Frame,
    cells: Vec<Cell>,
}

/// A square that was worked on.
struct Made {
    outcome: Outcome,
    /// The file of a pair that is kept.
    png: Option<Vec<u8>>,
}

impl Prepared {
    fn open(source: &SourcePair, draw: Draw<'_>) -> Result<Self, DatasetError> {
        let imagery = Ground::open(&source.imagery, &|_| Ok(None))?;
        let map = Ground::open(&source.map, draw)?;
        let frame = frame(source)?;
        let mut prepared = Self { name: source.name.clone(), imagery, map, frame, cells: Vec::new() };
        prepared.cells = prepared.list(source)?;
        Ok(prepared)
    }

    fn credit(&self) -> SourceCredit {
        SourceCredit { name: self.name.clone(), imagery: self.imagery.credit(), map: self.map.credit() }
    }

    fn name(&self, cell: Cell) -> String {
        format!("{}-{}", self.name, self.frame.name(cell))
    }

    /// The squares of the grid that imagery may have something of, in an order that is always the same.
    fn list(&self, source: &SourcePair) -> Result<Vec<Cell>, DatasetError> {
        let imagery = || self.imagery.options.path.clone();
        let too_many = || DatasetError::TooManyPairs { imagery: imagery(), limit: MAX_LISTED_TILES };
        let mut cells = match (&source.grid, &self.imagery.kind) {
            (Grid::Tiles { zooms, .. }, Kind::Tiles { reader, .. }) => {
                let wanted = |tile: &Tile| zooms.is_empty() || zooms.contains(&tile.z());
                reader.tiles()?.into_iter().filter(wanted).map(Cell::Tile).collect()
            }
            (Grid::Tiles { zooms, side, metres_per_pixel }, _) => {
                let bounds = self.imagery.bounds()?.expect("imagery is of tiles or a raster");
                let zooms = match zooms.as_slice() {
                    [] => vec![self.zoom_of_raster(*metres_per_pixel, *side)?],
                    zooms => zooms.to_vec(),
                };
                let mut cells = Vec::new();
                for zoom in zooms {
                    let cover = bounds.tiles(zoom).expect("zooms were checked");
                    if cover.len() + cells.len() as u64 > MAX_LISTED_TILES as u64 {
                        return Err(too_many());
                    }
                    cells.extend(cover.iter().map(Cell::Tile));
                }
                cells
            }
            (Grid::Own { side, .. }, _) => {
                let raster = self.frame.raster.as_ref().expect("a raster's own grid has a raster");
                let length = f64::from(*side) * raster.step;
                // A hair less, because steps are fractions.
                let count = |pixels: u32| (f64::from(pixels) / length + 1e-9).floor() as u64;
                let (columns, rows) = (count(raster.reader.width()), count(raster.reader.height()));
                if columns * rows > MAX_LISTED_TILES as u64 {
                    return Err(too_many());
                }
                let corner = |index: u64| index as f64 * length;
                let window = |row: u64, column: u64| Cell::Window { x: corner(column), y: corner(row) };
                (0..rows).flat_map(|row| (0..columns).map(move |column| window(row, column))).collect()
            }
        };
        let gridded = cells.len();
        if let Some(region) = source.region {
            let mut inside = Vec::new();
            for cell in cells {
                if region.contains(self.frame.place(cell)?.position()) {
                    inside.push(cell);
                }
            }
            cells = inside;
        }
        if cells.is_empty() {
            let detail = match source.region {
                Some(region) if gridded > 0 => format!("none of {gridded} lies in {region}"),
                _ => "no square of the grid fits into it".to_owned(),
            };
            return Err(DatasetError::NoPairs { imagery: imagery(), detail });
        }
        self.with_a_map(cells)
    }

    /// The squares that the map's store has, where that can be said beforehand.
    fn with_a_map(&self, cells: Vec<Cell>) -> Result<Vec<Cell>, DatasetError> {
        let Kind::Tiles { reader, .. } = &self.map.kind else { return Ok(cells) };
        let options = &self.map.options;
        let lies_alike = options.datum == self.frame.datum && options.offset == [0.0; 2];
        if !lies_alike || self.frame.raster.is_some() {
            return Ok(cells);
        }
        let mut common = Vec::new();
        for cell in cells {
            if let Cell::Tile(tile) = cell
                && reader.contains(tile)?
            {
                common.push(cell);
            }
        }
        if common.is_empty() { Err(self.nothing_in_common()) } else { Ok(common) }
    }

    fn nothing_in_common(&self) -> DatasetError {
        let (imagery, map) = (self.imagery.options.path.clone(), self.map.options.path.clone());
        DatasetError::NothingInCommon { imagery, map }
    }

    fn zoom_of_raster(&self, metres: Option<f64>, side: u32) -> Result<u8, DatasetError> {
        let Kind::Raster { reader, .. } = &self.imagery.kind else { unreachable!("imagery is a raster") };
        let place = reader.place(f64::from(reader.width()) / 2.0, f64::from(reader.height()) / 2.0)?;
        let own = place.metres_per_pixel().expect("rasters know their size");
        Ok(nearest_zoom(metres.unwrap_or(own), place.position().latitude(), side))
    }

    /// Cuts, measures and encodes a pair. An error is of the whole; one of this pair alone is an outcome.
    fn pair(&self, cell: Cell, options: &MakeOptions) -> Result<Made, DatasetError> {
        match self.cut(cell, options) {
            Err(error) if error.is_of_one_pair() => {
                let outcome = Outcome::Unreadable { name: self.name(cell), error: error.to_string() };
                Ok(Made { outcome, png: None })
            }
            made => made,
        }
    }

    fn cut(&self, cell: Cell, options: &MakeOptions) -> Result<Made, DatasetError> {
        let filters = &options.filters;
        let nothing = Made { outcome: Outcome::Nothing, png: None };
        let Some(mut photograph) = self.imagery.patch(&self.frame, cell, [0; 2])? else { return Ok(nothing) };
        let Some(map) = self.map.patch(&self.frame, cell, [0; 2])? else { return Ok(nothing) };
        let mut measures = measured(&photograph, &map, filters);
        if options.registration == Registration::Correct
            && let Some(shift) = filters.believed(measures.shift)
        {
            let moved = [shift.right.round() as i32, shift.down.round() as i32];
            if moved != [0; 2]
                && let Some(beside) = self.imagery.patch(&self.frame, cell, moved)?
            {
                photograph = beside;
                measures = measured(&photograph, &map, filters);
                measures.moved = Some(moved);
            }
        }
        let rules = filters.broken(&measures);
        let name = self.name(cell);
        if !rules.is_empty() {
            let outcome = Outcome::Rejected { name, rules, measures: Box::new(measures) };
            return Ok(Made { outcome, png: None });
        }
        let place = self.frame.place(cell)?;
        let record = PairRecord {
            name,
            file: String::new(),
            source: self.name.clone(),
            tile: match cell {
                Cell::Tile(tile) => Some(tile),
                Cell::Window { .. } => None,
            },
            bounds: self.frame.bounds(cell)?,
            place: place.position(),
            metres_per_pixel: place.metres_per_pixel().expect("squares know their size"),
            side: self.frame.side,
            split: None,
            measures,
        };
        let both = Picture::hconcat(&[&photograph.picture, &map.picture]);
        let png = encode_picture("png", &both, &WriteOptions::default())?;
        Ok(Made { outcome: Outcome::Kept(Box::new(record)), png: Some(png) })
    }
}

fn measured(photograph: &Patch, map: &Patch, filters: &Filters) -> super::Measures {
    let side = photograph.picture.width();
    let holes = Mask::drawn(side, side, |x, y| photograph.holes.is_hole(x, y) || map.holes.is_hole(x, y));
    measure(&photograph.picture, &map.picture, &holes, filters)
}

fn frame(source: &SourcePair) -> Result<Frame, DatasetError> {
    let raster = match &source.grid {
        Grid::Tiles { .. } => None,
        Grid::Own { metres_per_pixel, .. } => {
            let reader = open_raster(&source.imagery)?;
            let place = reader.place(f64::from(reader.width()) / 2.0, f64::from(reader.height()) / 2.0)?;
            let own = place.metres_per_pixel().expect("rasters know their size");
            let locator = Locator::new(reader.georeference()?).map_err(|cause| crs_error(&reader, cause))?;
            Some(RasterFrame { locator, step: metres_per_pixel.map_or(1.0, |metres| metres / own), reader })
        }
    };
    Ok(Frame { side: source.grid.side(), datum: source.imagery.datum, raster })
}

/// Counts pairs that could not be read, and stops when there are too many.
struct Skipped<'a> {
    folder: &'a Path,
    limit: usize,
    errors: Vec<String>,
}

impl<'a> Skipped<'a> {
    fn new(folder: &'a Path, options: &MakeOptions, total: usize) -> Self {
        let limit = ((total as f64 * options.skip_limit) as usize).max(1);
        Self { folder, limit, errors: Vec::new() }
    }

    fn see(&mut self, outcome: &Outcome) -> Result<(), DatasetError> {
        let Outcome::Unreadable { error, .. } = outcome else { return Ok(()) };
        self.errors.push(error.clone());
        if self.errors.len() <= self.limit {
            return Ok(());
        }
        Err(DatasetError::TooManyUnreadable {
            folder: self.folder.to_owned(),
            count: self.errors.len(),
            limit: self.limit,
            first: self.errors[0].clone(),
        })
    }
}

/// Leaves out duplicates, splits, writes manifest and list, and removes what is not needed any more. A stop in between
/// leaves the journal, from which the same is done again.
fn finish(
    folder: &Path,
    options: &MakeOptions,
    credits: Vec<SourceCredit>,
    outcomes: Vec<Outcome>,
) -> Result<Report, DatasetError> {
    let hash = |outcome: &Outcome| match outcome {
        Outcome::Kept(record) => record.measures.hash_bits(),
        _ => None,
    };
    let duplicates = options.filters.duplicates(&outcomes.iter().map(hash).collect::<Vec<_>>());
    let mut report = Report::default();
    let (mut pairs, mut left_out, mut unneeded) = (Vec::new(), String::new(), Vec::new());
    for (outcome, is_duplicate) in outcomes.into_iter().zip(duplicates) {
        let outcome = match outcome {
            Outcome::Kept(record) if is_duplicate => {
                unneeded.push(record.path(folder));
                let rules = BTreeSet::from([Rule::NearDuplicate]);
                Outcome::Rejected { name: record.name, rules, measures: Box::new(record.measures) }
            }
            outcome => outcome,
        };
        match outcome {
            Outcome::Nothing => continue,
            Outcome::Kept(record) => {
                report.corrected += usize::from(record.measures.moved.is_some());
                pairs.push(*record);
            }
            rejected @ Outcome::Rejected { .. } => {
                left_out += &json_line(&rejected);
                let Outcome::Rejected { rules, .. } = rejected else { unreachable!("it was matched") };
                rules.into_iter().for_each(|rule| *report.rules.entry(rule).or_default() += 1);
                report.rejected += 1;
            }
            unreadable @ Outcome::Unreadable { .. } => {
                left_out += &json_line(&unreadable);
                report.unreadable += 1;
            }
        }
        report.candidates += 1;
    }
    report.kept = pairs.len();
    report.shifts = median_shifts(&pairs, &options.filters);
    if report.candidates == 0 {
        let source = &options.sources[0];
        let (imagery, map) = (source.imagery.path.clone(), source.map.path.clone());
        return Err(DatasetError::NothingInCommon { imagery, map });
    }
    let mut header = ManifestHeader::new(credits);
    (header.options, header.report) = (Some(options.clone()), Some(report));
    let mut manifest = Manifest { folder: folder.to_owned(), header, pairs };
    manifest.split(&options.split)?;
    atomic_write(&folder.join(REJECTED), left_out.as_bytes(), true)?;
    manifest.write(true)?;
    for file in unneeded.iter().chain([&folder.join(JOURNAL)]) {
        match fs::remove_file(file) {
            Err(cause) if cause.kind() != io::ErrorKind::NotFound => {
                return Err(WriteError::Io { path: file.clone(), cause }.into());
            }
            _ => {}
        }
    }
    Ok(manifest.header.report.expect("the report was put there"))
}

fn median_shifts(pairs: &[PairRecord], filters: &Filters) -> BTreeMap<String, (f64, f64, usize)> {
    let mut found: BTreeMap<String, (Vec<f64>, Vec<f64>)> = BTreeMap::new();
    for pair in pairs {
        if let Some(shift) = filters.believed(pair.measures.shift) {
            let moved = pair.measures.moved.unwrap_or_default().map(f64::from);
            let (right, down) = found.entry(pair.source.clone()).or_default();
            right.push(shift.right + moved[0]);
            down.push(shift.down + moved[1]);
        }
    }
    let median = |mut values: Vec<f64>| {
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    let medians = found.into_iter().map(|(source, (right, down))| {
        let count = right.len();
        (source, (median(right), median(down), count))
    });
    medians.collect()
}

/// Removes what a killed run was writing. The journal is locked, so nobody else writes here.
fn clear(folder: &Path) -> Result<(), WriteError> {
    let shards = match fs::read_dir(folder.join("pairs")) {
        Ok(shards) => shards.filter_map(|shard| Some(shard.ok()?.path())).collect(),
        Err(_) => Vec::new(),
    };
    for folder in shards.iter().map(PathBuf::as_path).filter(|shard| shard.is_dir()).chain([folder]) {
        remove_leftovers(folder).map_err(|cause| WriteError::Io { path: folder.to_owned(), cause })?;
    }
    Ok(())
}

fn write_pair(path: &Path, png: &[u8]) -> Result<(), DatasetError> {
    let shard = path.parent().expect("a pair is in a folder");
    fs::create_dir_all(shard).map_err(|cause| WriteError::Io { path: shard.to_owned(), cause })?;
    // What an interrupted run left behind is written anew: it may be of the squares that were not noted.
    Ok(atomic_write(path, png, true)?)
}

fn no_folder(folder: &Path, cause: io::Error) -> WriteError {
    match folder.parent() {
        Some(parent) if cause.kind() == io::ErrorKind::NotFound => {
            WriteError::NoFolder { path: folder.to_owned(), folder: parent.to_owned() }
        }
        _ => WriteError::Io { path: folder.to_owned(), cause },
    }
}

/// A number that changes with the names (FNV-1a).
fn digest(names: impl Iterator<Item = String>) -> u64 {
    names.fold(0xCBF2_9CE4_8422_2325, |digest, name| {
        let bytes = name.bytes().chain([0]);
        bytes.fold(digest, |digest, byte| (digest ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3))
    })
}
