//! Inception-v3 as FID, KID, precision and recall use it: pictures → 2048 features each.
//!
//! It is the network that TensorFlow published in December 2015, whose weights PyTorch implementations pass on as
//! `pt_inception-2015-12-05`. Three things differ from torchvision's Inception-v3: average pooling leaves out the
//! border, the last block takes a maximum instead of a mean, and there are 1008 classes, which are not needed here.

use std::path::Path;

use burn::tensor::{Device, Tensor, TensorData};
use earthmapper_geo::picture::Picture;
use rayon::prelude::*;

use super::feature_maps::{Convolution, Geometry, MaxPool, Step, run};
use super::host_maps::{HostMaps, is_host};
use super::weights::{NamedTensors, WeightsError};
use crate::metrics::Features;

/// Number of features of a picture.
pub const INCEPTION_FEATURES: usize = 2048;

/// Side of the pictures that the network sees, in pixels.
const SIDE: usize = 299;

/// Added to the variance in every batch norm.
const EPSILON: f64 = 0.001;

/// How pictures are resized to 299 × 299 pixels and scaled. Both are bilinear without antialiasing; distances change
/// with the choice, so that results of different ones must not be compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum InceptionInput {
    /// Pixel centres at half numbers, 0 … 255 → -1 … 1: as pytorch-fid.
    #[default]
    HalfPixel,
    /// Pixel centres at whole numbers from the left and upper border, (value − 128) ÷ 128: as TensorFlow 1, which the
    /// first FID was computed with, and torch-fidelity.
    Corner,
}

/// The frozen network down to its last pooling.
#[derive(Debug)]
pub struct Inception {
    steps: Vec<Step>,
    input: InceptionInput,
    device: Device,
}

impl Inception {
    /// Loads weights under pytorch-fid's names (`Mixed_5b.branch1x1.conv.weight`) from a safetensors or PyTorch file.
    ///
    /// Every tensor must be there in its shape; the classifier (`fc`) and counters of batches are ignored.
    ///
    /// # Errors
    /// See [`WeightsError`].
    pub fn load(path: impl AsRef<Path>, device: &Device) -> Result<Self, WeightsError> {
        Self::from_weights(NamedTensors::read(path)?, device)
    }

    /// [`load`](Self::load) from tensors that are read already.
    ///
    /// # Errors
    /// See [`WeightsError`].
    pub fn from_weights(mut weights: NamedTensors, device: &Device) -> Result<Self, WeightsError> {
        Self::keep_own(&mut weights);
        let device = device.clone().without_autodiff();
        let mut source = Source { weights, device: &device };
        let steps = source.network()?;
        source.weights.finish()?;
        Ok(Self { steps, input: InceptionInput::default(), device })
    }

    /// Drops what a file holds beside the network down to its last pooling: the classifier and counters of batches.
    pub(super) fn keep_own(weights: &mut NamedTensors) {
        let needed = |name: &str| !name.starts_with("fc.") && !name.ends_with(".num_batches_tracked");
        weights.rename(|name| needed(name).then(|| name.to_string()));
    }

    /// The same network with another way of resizing.
    pub fn with_input(self, input: InceptionInput) -> Self {
        Self { input, ..self }
    }

    /// The features of each picture, after the last pooling. On a CPU pictures are worked on side by side, one per
    /// thread; on other devices `batch` of them at a time.
    pub fn features(&self, pictures: &[Picture], batch: usize) -> Features {
        let values = if is_host(&self.device) {
            pictures.par_iter().map(|picture| self.host_features(picture)).flatten_iter().collect()
        } else {
            pictures.chunks(batch.max(1)).flat_map(|pictures| self.device_features(pictures)).collect()
        };
        Features::new(INCEPTION_FEATURES, values)
    }

    /// The same by Burn's own operations, `[pictures · 2048]`: for devices other than the CPU.
    fn device_features(&self, pictures: &[Picture]) -> Vec<f32> {
        let values: Vec<f32> = pictures.iter().flat_map(|picture| self.input.of(picture).values).collect();
        let pixels = TensorData::new(values, [pictures.len(), SIDE, SIDE, 3]);
        let pixels = Tensor::<4>::from_data(pixels, &self.device).permute([0, 3, 1, 2]);
        let maps = run(&self.steps, pixels);
        maps.mean_dim(2).mean_dim(3).into_data().iter::<f32>().collect()
    }

    fn host_features(&self, picture: &Picture) -> Vec<f32> {
        let maps = run(&self.steps, self.input.of(picture));
        let mut sums = vec![0.0; maps.channels];
        for pixel in maps.values.chunks_exact(maps.channels) {
            sums.iter_mut().zip(pixel).for_each(|(sum, value)| *sum += value);
        }
        let count = (maps.height * maps.width) as f32;
        sums.iter_mut().for_each(|sum| *sum /= count);
        sums
    }
}

impl InceptionInput {
    /// `[299, 299, 3]`, as the network takes it.
    fn of(self, picture: &Picture) -> HostMaps {
        let (width, height) = (picture.width() as usize, picture.height() as usize);
        let (rows, columns) = (self.neighbours(height), self.neighbours(width));
        let mut values = Vec::with_capacity(SIDE * SIDE * 3);
        for (upper, lower, down) in rows {
            let row = |y: usize| &picture.rgb()[y * width * 3..][..width * 3];
            let (upper, lower) = (row(upper), row(lower));
            for (left, right, across) in &columns {
                for channel in 0..3 {
                    let (left, right) = (left * 3 + channel, right * 3 + channel);
                    let between =
                        |row: &[u8]| f32::from(row[left]) * (1.0 - across) + f32::from(row[right]) * across;
                    values.push(self.scale(between(upper) * (1.0 - down) + between(lower) * down));
                }
            }
        }
        HostMaps { height: SIDE, width: SIDE, channels: 3, values }
    }

    /// For each of 299 places along a side of `side` pixels: the pixels before and after, and the weight of the latter.
    fn neighbours(self, side: usize) -> Vec<(usize, usize, f32)> {
        let scale = side as f32 / SIDE as f32;
        let place = |index: usize| {
            let at = match self {
                Self::HalfPixel => ((index as f32 + 0.5) * scale - 0.5).max(0.0),
                Self::Corner => index as f32 * scale,
            };
            let before = (at as usize).min(side - 1);
            (before, (before + 1).min(side - 1), at - before as f32)
        };
        (0..SIDE).map(place).collect()
    }

    fn scale(self, value: f32) -> f32 {
        match self {
            Self::HalfPixel => value / 127.5 - 1.0,
            Self::Corner => (value - 128.0) / 128.0,
        }
    }
}

/// Reads the network's parts one by one.
struct Source<'a> {
    weights: NamedTensors,
    device: &'a Device,
}

/// Name, outputs and geometry of a convolution of a branch.
type Layer<'a> = (&'a str, usize, Geometry);

impl Source<'_> {
    fn network(&mut self) -> Result<Vec<Step>, WeightsError> {
        let (one, three) = (Geometry::plain(1, 1), Geometry::plain(3, 3));
        let half = Step::MaxPool(MaxPool::new(3, 2));
        let mut steps = vec![
            self.convolution("Conv2d_1a_3x3", [3, 32], three.with_stride(2))?,
            self.convolution("Conv2d_2a_3x3", [32, 32], three)?,
            self.convolution("Conv2d_2b_3x3", [32, 64], Geometry::same(3, 3))?,
            half.clone(),
            self.convolution("Conv2d_3b_1x1", [64, 80], one)?,
            self.convolution("Conv2d_4a_3x3", [80, 192], three)?,
            half,
            self.block_35("Mixed_5b", 192, 32)?,
            self.block_35("Mixed_5c", 256, 64)?,
            self.block_35("Mixed_5d", 288, 64)?,
            self.reduction_17("Mixed_6a")?,
        ];
        for (name, width) in [("Mixed_6b", 128), ("Mixed_6c", 160), ("Mixed_6d", 160), ("Mixed_6e", 192)] {
            steps.push(self.block_17(name, width)?);
        }
        steps.push(self.reduction_8("Mixed_7a")?);
        steps.push(self.block_8("Mixed_7b", 1280, Step::AveragePool)?);
        let maximum = Step::MaxPool(MaxPool { padding: 1, ..MaxPool::new(3, 1) });
        steps.push(self.block_8("Mixed_7c", 2048, maximum)?);
        Ok(steps)
    }

    /// A block at 35 × 35 places.
    fn block_35(&mut self, block: &str, inputs: usize, pooled: usize) -> Result<Step, WeightsError> {
        let (one, same) = (Geometry::plain(1, 1), Geometry::same(3, 3));
        Ok(Step::Branch(vec![
            self.branch(block, inputs, &[("branch1x1", 64, one)])?,
            self.branch(
                block,
                inputs,
                &[("branch5x5_1", 48, one), ("branch5x5_2", 64, Geometry::same(5, 5))],
            )?,
            self.branch(
                block,
                inputs,
                &[("branch3x3dbl_1", 64, one), ("branch3x3dbl_2", 96, same), ("branch3x3dbl_3", 96, same)],
            )?,
            self.pooled_branch(block, Step::AveragePool, [inputs, pooled])?,
        ]))
    }

    /// From 35 × 35 to 17 × 17 places.
    fn reduction_17(&mut self, block: &str) -> Result<Step, WeightsError> {
        let (one, half) = (Geometry::plain(1, 1), Geometry::plain(3, 3).with_stride(2));
        let doubled = [
            ("branch3x3dbl_1", 64, one),
            ("branch3x3dbl_2", 96, Geometry::same(3, 3)),
            ("branch3x3dbl_3", 96, half),
        ];
        Ok(Step::Branch(vec![
            self.branch(block, 288, &[("branch3x3", 384, half)])?,
            self.branch(block, 288, &doubled)?,
            vec![Step::MaxPool(MaxPool::new(3, 2))],
        ]))
    }

    /// A block at 17 × 17 places; 7 × 7 kernels are a row after a column or the other way round.
    fn block_17(&mut self, block: &str, width: usize) -> Result<Step, WeightsError> {
        let (one, row, column) = (Geometry::plain(1, 1), Geometry::same(1, 7), Geometry::same(7, 1));
        let single = [("branch7x7_1", width, one), ("branch7x7_2", width, row), ("branch7x7_3", 192, column)];
        let doubled = [
            ("branch7x7dbl_1", width, one),
            ("branch7x7dbl_2", width, column),
            ("branch7x7dbl_3", width, row),
            ("branch7x7dbl_4", width, column),
            ("branch7x7dbl_5", 192, row),
        ];
        Ok(Step::Branch(vec![
            self.branch(block, 768, &[("branch1x1", 192, one)])?,
            self.branch(block, 768, &single)?,
            self.branch(block, 768, &doubled)?,
            self.pooled_branch(block, Step::AveragePool, [768, 192])?,
        ]))
    }

    /// From 17 × 17 to 8 × 8 places.
    fn reduction_8(&mut self, block: &str) -> Result<Step, WeightsError> {
        let (one, half) = (Geometry::plain(1, 1), Geometry::plain(3, 3).with_stride(2));
        let single = [("branch3x3_1", 192, one), ("branch3x3_2", 320, half)];
        let seven = [
            ("branch7x7x3_1", 192, one),
            ("branch7x7x3_2", 192, Geometry::same(1, 7)),
            ("branch7x7x3_3", 192, Geometry::same(7, 1)),
            ("branch7x7x3_4", 192, half),
        ];
        Ok(Step::Branch(vec![
            self.branch(block, 768, &single)?,
            self.branch(block, 768, &seven)?,
            vec![Step::MaxPool(MaxPool::new(3, 2))],
        ]))
    }

    /// A block at 8 × 8 places, where rows and columns lie side by side.
    fn block_8(&mut self, block: &str, inputs: usize, pool: Step) -> Result<Step, WeightsError> {
        let one = Geometry::plain(1, 1);
        let mut single = self.branch(block, inputs, &[("branch3x3_1", 384, one)])?;
        single.push(self.row_and_column(block, "branch3x3_2")?);
        let doubled = [("branch3x3dbl_1", 448, one), ("branch3x3dbl_2", 384, Geometry::same(3, 3))];
        let mut doubled = self.branch(block, inputs, &doubled)?;
        doubled.push(self.row_and_column(block, "branch3x3dbl_3")?);
        Ok(Step::Branch(vec![
            self.branch(block, inputs, &[("branch1x1", 320, one)])?,
            single,
            doubled,
            self.pooled_branch(block, pool, [inputs, 192])?,
        ]))
    }

    fn row_and_column(&mut self, block: &str, name: &str) -> Result<Step, WeightsError> {
        let (row, column) = (Geometry::same(1, 3), Geometry::same(3, 1));
        Ok(Step::Branch(vec![
            self.branch(block, 384, &[(format!("{name}a").as_str(), 384, row)])?,
            self.branch(block, 384, &[(format!("{name}b").as_str(), 384, column)])?,
        ]))
    }

    fn pooled_branch(
        &mut self,
        block: &str,
        pool: Step,
        [inputs, outputs]: [usize; 2],
    ) -> Result<Vec<Step>, WeightsError> {
        let mut steps = vec![pool];
        steps.extend(self.branch(block, inputs, &[("branch_pool", outputs, Geometry::plain(1, 1))])?);
        Ok(steps)
    }

    /// Convolutions one after the other.
    fn branch(
        &mut self,
        block: &str,
        mut inputs: usize,
        layers: &[Layer],
    ) -> Result<Vec<Step>, WeightsError> {
        let mut steps = Vec::with_capacity(layers.len());
        for (name, outputs, geometry) in layers {
            steps.push(self.convolution(&format!("{block}.{name}"), [inputs, *outputs], *geometry)?);
            inputs = *outputs;
        }
        Ok(steps)
    }

    /// A convolution without bias and the batch norm after it, as one convolution with bias: with the gain
    /// g = weight / √(variance + ε) of a channel, w′ = g · w and b′ = bias − g · mean.
    fn convolution(
        &mut self,
        name: &str,
        [inputs, outputs]: [usize; 2],
        geometry: Geometry,
    ) -> Result<Step, WeightsError> {
        let [height, width] = geometry.kernel;
        let mut weight =
            self.weights.take(&format!("{name}.conv.weight"), &[outputs, inputs, height, width])?;
        let mut norm = |part: &str| self.weights.take(&format!("{name}.bn.{part}"), &[outputs]);
        let (gain, mut bias) = (norm("weight")?, norm("bias")?);
        let (mean, variance) = (norm("running_mean")?, norm("running_var")?);
        for (output, kernels) in weight.chunks_exact_mut(inputs * height * width).enumerate() {
            let gain = f64::from(gain[output]) / (f64::from(variance[output]) + EPSILON).sqrt();
            kernels.iter_mut().for_each(|value| *value = (f64::from(*value) * gain) as f32);
            bias[output] = (f64::from(bias[output]) - gain * f64::from(mean[output])) as f32;
        }
        let convolution = Convolution::new(weight, [outputs, inputs], bias, geometry, self.device);
        Ok(Step::Convolve(Box::new(convolution)))
    }
}
