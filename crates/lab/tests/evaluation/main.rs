//! What an evaluation promises, on drawn pairs of 16 pixels and a model that has learned nothing but its codebook.

mod baselines;
mod model_card;
mod numbers;
mod predictions;
mod sockets;

use std::path::Path;

use burn::tensor::Device;
use earthmapper::{EarthMapper, EarthMapperConfig, TokenizerConfig, TransformerConfig};
use earthmapper_geo::pairs::{PairFolder, PairSelection, PairSource};
use earthmapper_geo::{Picture, WriteOptions, write_picture};
use earthmapper_lab::data::read_square;
use earthmapper_lab::evaluate::{EvaluateOptions, Evaluated, evaluate};
use earthmapper_lab::progress::{Interrupt, ProgressMode};
use earthmapper_lab::start_from_data::StartFromData;

const SIDE: u32 = 16;

/// Land with a road and a shore, and a "photograph" of it in other colours.
fn pairs(folder: &Path, count: u32) -> PairFolder {
    for i in 0..count {
        let kind = |x: u32, y: u32| match (x, y) {
            (x, _) if x < 2 + i => 0,
            (_, y) if y / 2 == i % 8 => 1,
            _ => 2,
        };
        let map = Picture::drawn(SIDE, SIDE, |x, y| {
            [[179, 209, 254], [255, 255, 255], [233, 229, 220]][kind(x, y)]
        });
        let photograph = Picture::drawn(SIDE, SIDE, |x, y| {
            let [r, g, b] = [[20, 40, 60], [120, 120, 120], [60, 90, 40]][kind(x, y)];
            [r + (x * y % 7) as u8, g, b + (3 * i) as u8]
        });
        let both = Picture::hconcat(&[&photograph, &map]);
        write_picture(folder.join(format!("{}.png", i + 1)), &both, &WriteOptions::default()).unwrap();
    }
    let source = PairSource::SideBySide { folder: folder.into(), order: Default::default() };
    PairFolder::open(&source, &PairSelection::default()).unwrap()
}

fn model(pairs: &PairFolder) -> EarthMapper {
    let tokenizer = TokenizerConfig {
        picture_side: SIDE as usize,
        sides: vec![1, 2, 4],
        vocabulary: 24,
        latent_width: 6,
        quantizer_depth: 2,
        fold: 2,
        channels: 8,
        multipliers: vec![1, 2],
        residual_blocks: 1,
        linear_path: true,
        ..Default::default()
    };
    let transformer = TransformerConfig { depth: 2, width: 32, heads: 2, ..Default::default() };
    let config = EarthMapperConfig { format: 1, name: "tiny".into(), transformer, ..Default::default() };
    let mut model = EarthMapper::new(config, tokenizer, 7, &Device::flex());
    let pictures: Vec<Picture> = (0..pairs.len())
        .map(|index| read_square(pairs, index, SIDE).unwrap())
        .flat_map(|pair| [pair.satellite, pair.map])
        .collect();
    model.tokenizer = StartFromData::default().apply(model.tokenizer, &pictures, 3);
    model
}

fn quick(model: &EarthMapper) -> EvaluateOptions {
    EvaluateOptions {
        batch_size: 3,
        diversity_pictures: 2,
        sheet_rows: 2,
        tile_side: 24,
        ..EvaluateOptions::new(model)
    }
}

/// Measures in silence.
fn run(model: &EarthMapper, pairs: &PairFolder, options: &EvaluateOptions) -> Evaluated {
    evaluate(model, pairs, options, ProgressMode::Silent, &Interrupt::new()).unwrap()
}

fn failure(model: &EarthMapper, pairs: &PairFolder, options: &EvaluateOptions) -> String {
    let result = evaluate(model, pairs, options, ProgressMode::Silent, &Interrupt::new());
    result.map(|_| ()).unwrap_err().to_string()
}
