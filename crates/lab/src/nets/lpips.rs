//! LPIPS, the learned perceptual distance (arXiv 1801.03924), on the features of AlexNet, VGG-16 or SqueezeNet 1.1.
//!
//! Both pictures pass through a frozen classifier; at five or seven depths the features are normalised to unit length
//! over the channels, and their squared differences, weighted per channel by a learned head and averaged over the
//! picture, add up to the distance. It is differentiable, so it also serves as the perceptual loss.

use std::fmt;
use std::path::Path;

use burn::tensor::{Device, Tensor, TensorData};
use earthmapper_geo::picture::Picture;
use rayon::prelude::*;

use super::feature_maps::{Convolution, Geometry, MaxPool, Rounding, Step, run};
use super::host_maps::{HostMaps, is_host};
use super::weights::{NamedTensors, WeightsError};
use crate::data::to_unit;
use crate::metrics::MetricsError;

const NETWORK: &str = "LPIPS";

/// The shift and scale of red, green and blue by which LPIPS turns [-1, 1] into the classifiers' input.
const SHIFT: [f32; 3] = [-0.030, -0.088, -0.188];
const SCALE: [f32; 3] = [0.458, 0.448, 0.450];

/// The classifier whose features are compared. Distances of different ones must not be compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backbone {
    /// AlexNet: the one its authors recommend as a metric.
    Alex,
    /// VGG-16: the one its authors recommend as a loss.
    Vgg,
    /// SqueezeNet 1.1: the smallest.
    Squeeze,
}

impl Backbone {
    /// Tells the classifier from the names of its layers; none when they are of another network.
    fn of(weights: &NamedTensors) -> Option<Self> {
        let has = |name: &str| weights.contains(&format!("features.{name}.weight"));
        if has("3.squeeze") {
            Some(Self::Squeeze)
        } else if has("0") && has("2") {
            Some(Self::Vgg)
        } else if has("0") && has("3") {
            Some(Self::Alex)
        } else {
            None
        }
    }

    /// The smallest side of a picture in pixels that leaves something at every depth.
    pub fn smallest_side(self) -> u32 {
        match self {
            Self::Vgg => 16,
            Self::Alex | Self::Squeeze => 32,
        }
    }

    /// The layers down to each depth. A number stands for the layer `features.N` of torchvision.
    fn depths(self) -> &'static [&'static [Layer]] {
        use Layer::{Convolution as C, Fire as F, MaxPool as P};
        const WIDE: Geometry = Geometry { kernel: [11, 11], stride: 4, padding: [2, 2] };
        const FIVE: Geometry = Geometry { kernel: [5, 5], stride: 1, padding: [2, 2] };
        const SAME: Geometry = Geometry { kernel: [3, 3], stride: 1, padding: [1, 1] };
        const HALF: Geometry = Geometry { kernel: [3, 3], stride: 2, padding: [0, 0] };
        const TWO: MaxPool = MaxPool { side: 2, stride: 2, padding: 0, rounding: Rounding::Down };
        const THREE: MaxPool = MaxPool { side: 3, stride: 2, padding: 0, rounding: Rounding::Down };
        const THREE_UP: MaxPool = MaxPool { side: 3, stride: 2, padding: 0, rounding: Rounding::Up };
        match self {
            Self::Alex => &[
                &[C(0, WIDE)],
                &[P(THREE), C(3, FIVE)],
                &[P(THREE), C(6, SAME)],
                &[C(8, SAME)],
                &[C(10, SAME)],
            ],
            Self::Vgg => &[
                &[C(0, SAME), C(2, SAME)],
                &[P(TWO), C(5, SAME), C(7, SAME)],
                &[P(TWO), C(10, SAME), C(12, SAME), C(14, SAME)],
                &[P(TWO), C(17, SAME), C(19, SAME), C(21, SAME)],
                &[P(TWO), C(24, SAME), C(26, SAME), C(28, SAME)],
            ],
            Self::Squeeze => &[
                &[C(0, HALF)],
                &[P(THREE_UP), F(3), F(4)],
                &[P(THREE_UP), F(6), F(7)],
                &[P(THREE_UP), F(9)],
                &[F(10)],
                &[F(11)],
                &[F(12)],
            ],
        }
    }
}

impl fmt::Display for Backbone {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str(match self {
            Self::Alex => "alex",
            Self::Vgg => "vgg",
            Self::Squeeze => "squeeze",
        })
    }
}

/// One layer of a classifier.
enum Layer {
    /// A convolution with ReLU, by its number.
    Convolution(usize, Geometry),
    /// Two convolutions, of one pixel and of 3 × 3, on the result of a narrow one, by its number.
    Fire(usize),
    /// Maximum of each window.
    MaxPool(MaxPool),
}

/// A frozen LPIPS. Its weights never learn; gradients flow through it to both pictures.
#[derive(Debug)]
pub struct Lpips {
    backbone: Backbone,
    depths: Vec<Depth>,
    device: Device,
}

/// The steps down to one depth, and the weight of each of its channels.
#[derive(Debug)]
struct Depth {
    steps: Vec<Step>,
    /// `[1, channels, 1, 1]`
    head: Tensor<4>,
    /// `[channels]`
    host_head: Vec<f32>,
}

impl Lpips {
    /// Loads a classifier and the heads from two files, or from one that holds both (`heads` is `None`).
    ///
    /// The classifier under torchvision's names (`features.0.weight`) or those of a whole LPIPS state
    /// (`net.slice1.0.weight`), which also tell which one it is; heads under the lpips package's names
    /// (`lin0.model.1.weight`). The channel counts are read off the file. The classifier's last layers are ignored.
    ///
    /// # Errors
    /// See [`WeightsError`].
    pub fn load(
        backbone: impl AsRef<Path>,
        heads: Option<&Path>,
        device: &Device,
    ) -> Result<Self, WeightsError> {
        let backbone = NamedTensors::read(backbone)?;
        let heads = heads.map(NamedTensors::read).transpose()?;
        Self::from_weights(backbone, heads, device)
    }

    /// [`load`](Self::load) of what the user names in one word, `FILE` or `FILE,HEADS`.
    ///
    /// # Errors
    /// See [`WeightsError`].
    pub fn load_named(files: &str, device: &Device) -> Result<Self, WeightsError> {
        let (classifier, heads) = classifier_and_heads(files);
        Self::load(classifier, heads, device)
    }

    /// [`load`](Self::load) from tensors that are read already.
    ///
    /// # Errors
    /// See [`WeightsError`].
    pub fn from_weights(
        mut weights: NamedTensors,
        heads: Option<NamedTensors>,
        device: &Device,
    ) -> Result<Self, WeightsError> {
        let device = device.clone().without_autodiff();
        let mut heads = Self::keep_own(&mut weights, heads);
        let Some(backbone) = Backbone::of(&weights) else {
            return Err(WeightsError::OtherNetwork {
                path: weights.path().to_path_buf(),
                network: NETWORK,
                reason: "its layers are not those of torchvision's AlexNet, VGG-16 or SqueezeNet 1.1".into(),
            });
        };

        let mut channels = 3;
        let mut depths = Vec::new();
        for (depth, layers) in backbone.depths().iter().enumerate() {
            let mut steps = Vec::new();
            for layer in *layers {
                channels = take_layer(&mut weights, layer, channels, &mut steps, &device)?;
            }
            let head = heads.take(&format!("lin{depth}.model.1.weight"), &[1, channels, 1, 1])?;
            depths.push(Depth {
                steps,
                head: Tensor::from_data(TensorData::new(head.clone(), [1, channels, 1, 1]), &device),
                host_head: head,
            });
        }
        weights.finish()?;
        heads.finish()?;
        Ok(Self { backbone, depths, device })
    }

    /// Keeps the classifier's features under torchvision's names and gives the heads. These keep their own file's name
    /// for errors; in a single file they lie beside the classifier.
    pub(super) fn keep_own(weights: &mut NamedTensors, heads: Option<NamedTensors>) -> NamedTensors {
        let mut heads = heads.unwrap_or_else(|| weights.clone());
        // A whole LPIPS state names its heads twice, as `lin0` and as `lins.0`.
        let known = |name: &str| name.starts_with("lin") && !name.starts_with("lins.");
        heads.rename(|name| known(name).then(|| name.to_string()));
        weights.rename(torchvision_name);
        heads
    }

    /// The classifier that the file held.
    pub fn backbone(&self) -> Backbone {
        self.backbone
    }

    /// The distance of each pair of pictures; zero for equal ones.
    ///
    /// # Shapes
    /// - first, second: `[batch, 3, height, width]` in [-1, 1], sides of [`Backbone::smallest_side`] at least
    /// - result: `[batch]`
    pub fn forward(&self, first: Tensor<4>, second: Tensor<4>) -> Tensor<1> {
        let [batch, ..] = first.dims();
        let mut distance: Option<Tensor<4>> = None;
        let (mut first, mut second) = (to_input(first), to_input(second));
        for depth in &self.depths {
            (first, second) = (run(&depth.steps, first), run(&depth.steps, second));
            let difference = unit_length(first.clone()) - unit_length(second.clone());
            let here = (difference.square() * depth.head.clone()).sum_dim(1).mean_dim(2).mean_dim(3);
            distance = Some(match distance {
                Some(distance) => distance + here,
                None => here,
            });
        }
        distance.expect("there are five depths at least").reshape([batch])
    }

    /// The distance of each picture in `first` from the one at its place in `second`.
    ///
    /// # Errors
    /// [`MetricsError::CountMismatch`], and [`MetricsError::SizeMismatch`] or [`MetricsError::TooSmall`] for a pair.
    pub fn distances(&self, first: &[Picture], second: &[Picture]) -> Result<Vec<f64>, MetricsError> {
        if first.len() != second.len() {
            return Err(MetricsError::CountMismatch { left: first.len(), right: second.len() });
        }
        for (first, second) in first.iter().zip(second) {
            crate::metrics::check_sizes(first, second)?;
            let (size, needed) = ((first.width(), first.height()), self.backbone.smallest_side());
            if size.0.min(size.1) < needed {
                return Err(MetricsError::TooSmall { size, needed });
            }
        }
        let pairs: Vec<_> = first.iter().zip(second).collect();
        if is_host(&self.device) {
            return Ok(pairs
                .into_par_iter()
                .map(|(first, second)| self.host_distance(first, second))
                .collect());
        }
        let distance = |(first, second): (&Picture, &Picture)| {
            let [first, second] = [first, second].map(|picture| {
                let shape = [1, 3, picture.height() as usize, picture.width() as usize];
                let values = to_unit(std::slice::from_ref(picture));
                Tensor::from_data(TensorData::new(values, shape), &self.device)
            });
            f64::from(self.forward(first, second).into_scalar::<f32>())
        };
        Ok(pairs.into_iter().map(distance).collect())
    }

    fn host_distance(&self, first: &Picture, second: &Picture) -> f64 {
        let (mut first, mut second) = (host_input(first), host_input(second));
        let mut distance = 0.0;
        for depth in &self.depths {
            let (a, b) = (first, second);
            (first, second) = rayon::join(move || run(&depth.steps, a), move || run(&depth.steps, b));
            let pixels =
                first.values.chunks_exact(first.channels).zip(second.values.chunks_exact(second.channels));
            let sum: f64 = pixels.map(|(a, b)| weighted_difference(a, b, &depth.host_head)).sum();
            distance += sum / (first.height * first.width) as f64;
        }
        distance
    }
}

/// `FILE` or `FILE,HEADS` as paths.
pub fn classifier_and_heads(files: &str) -> (&Path, Option<&Path>) {
    match files.split_once(',') {
        Some((classifier, heads)) => (Path::new(classifier), Some(Path::new(heads))),
        None => (Path::new(files), None),
    }
}

/// Σ weight · (a / |a| − b / |b|)² over the channels of one pixel.
fn weighted_difference(a: &[f32], b: &[f32], weights: &[f32]) -> f64 {
    let factor = |features: &[f32]| {
        let squares: f32 = features.iter().map(|value| value * value).sum();
        1.0 / (squares.sqrt() + 1e-10)
    };
    let (a_factor, b_factor) = (factor(a), factor(b));
    let term = |((a, b), weight): ((&f32, &f32), &f32)| {
        let difference = a * a_factor - b * b_factor;
        weight * difference * difference
    };
    f64::from(a.iter().zip(b).zip(weights).map(term).sum::<f32>())
}

/// A picture as the classifiers' input.
fn host_input(picture: &Picture) -> HostMaps {
    let value = |(index, &byte): (usize, &u8)| {
        let channel = index % 3;
        (f32::from(byte) / 127.5 - 1.0 - SHIFT[channel]) / SCALE[channel]
    };
    HostMaps {
        height: picture.height() as usize,
        width: picture.width() as usize,
        channels: 3,
        values: picture.rgb().iter().enumerate().map(value).collect(),
    }
}

/// [-1, 1] → what the classifiers were trained on.
fn to_input(pictures: Tensor<4>) -> Tensor<4> {
    let device = pictures.device().without_autodiff();
    let colour =
        |values: [f32; 3]| Tensor::<4>::from_data(TensorData::new(values.to_vec(), [1, 3, 1, 1]), &device);
    (pictures - colour(SHIFT)) / colour(SCALE)
}

/// Features divided by their length over the channels.
fn unit_length(features: Tensor<4>) -> Tensor<4> {
    // The reference adds 1e-10 outside the root only; the tiny number inside keeps the root's slope finite
    // where all channels are zero, and changes no value.
    let length = features.clone().square().sum_dim(1).add_scalar(1e-24).sqrt().add_scalar(1e-10);
    features / length
}

/// `features.N.…` for the classifier's layers in either naming, nothing for the rest of a file.
fn torchvision_name(name: &str) -> Option<String> {
    if name.starts_with("features.") {
        return Some(name.to_string());
    }
    // net.slice3.10.weight → features.10.weight
    let (_slice, rest) = name.strip_prefix("net.slice")?.split_once('.')?;
    Some(format!("features.{rest}"))
}

/// Appends a layer's steps and returns how many channels come out of it.
fn take_layer(
    weights: &mut NamedTensors,
    layer: &Layer,
    channels: usize,
    steps: &mut Vec<Step>,
    device: &Device,
) -> Result<usize, WeightsError> {
    let mut take = |name: String, channels: usize, geometry: Geometry| {
        Convolution::take(weights, &format!("features.{name}"), channels, geometry, NETWORK, device)
    };
    Ok(match *layer {
        Layer::MaxPool(pool) => {
            steps.push(Step::MaxPool(pool));
            channels
        }
        Layer::Convolution(number, geometry) => {
            let convolution = take(number.to_string(), channels, geometry)?;
            let channels = convolution.outputs();
            steps.push(Step::Convolve(Box::new(convolution)));
            channels
        }
        Layer::Fire(number) => {
            let squeeze = take(format!("{number}.squeeze"), channels, Geometry::plain(1, 1))?;
            let narrow = squeeze.outputs();
            let expand = [("expand1x1", Geometry::plain(1, 1)), ("expand3x3", Geometry::same(3, 3))];
            let expand = expand
                .map(|(name, geometry)| take(format!("{number}.{name}"), narrow, geometry))
                .into_iter()
                .collect::<Result<Vec<_>, _>>()?;
            let channels = expand.iter().map(Convolution::outputs).sum();
            steps.push(Step::Convolve(Box::new(squeeze)));
            steps.push(Step::Branch(
                expand.into_iter().map(|conv| vec![Step::Convolve(Box::new(conv))]).collect(),
            ));
            channels
        }
    })
}
