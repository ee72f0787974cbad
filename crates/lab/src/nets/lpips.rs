//! LPIPS, the learned perceptual distance (arXiv 1801.03924), on VGG-16 features.
//!
//! Both pictures pass through a frozen VGG-16; at five depths the features are normalised to unit length over
//! the channels, and their squared differences, weighted per channel by a learned head and averaged over the
//! picture, add up to the distance. It is differentiable, so it also serves as the perceptual loss.

use std::path::Path;

use burn::module::{Module, Param};
use burn::nn::PaddingConfig2d;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::tensor::module::max_pool2d;
use burn::tensor::ops::MaxPoolOptions;
use burn::tensor::{Device, Tensor, TensorData, activation};

use super::weights::{NamedTensors, WeightsError};

const NETWORK: &str = "LPIPS (VGG-16)";

/// The convolutions of each depth, by their number in torchvision's `features`. A 2 × 2 max pooling stands
/// before every depth but the first.
const DEPTHS: [&[usize]; 5] = [&[0, 2], &[5, 7], &[10, 12, 14], &[17, 19, 21], &[24, 26, 28]];

/// The shift and scale of red, green and blue by which LPIPS turns [-1, 1] into VGG's input.
const SHIFT: [f32; 3] = [-0.030, -0.088, -0.188];
const SCALE: [f32; 3] = [0.458, 0.448, 0.450];

/// A frozen LPIPS. Its weights never learn; gradients flow through it to both pictures.
#[derive(Module, Debug)]
pub struct Lpips {
    depths: Vec<Depth>,
}

/// The convolutions down to one depth, and the weight of each of its channels.
#[derive(Module, Debug)]
struct Depth {
    convolutions: Vec<Conv2d>,
    /// `[1, channels, 1, 1]`
    head: Param<Tensor<4>>,
}

impl Lpips {
    /// Loads VGG-16 and the heads from two files, or from one that holds both (`heads` is `None`).
    ///
    /// VGG under torchvision's names (`features.0.weight`) or those of a whole LPIPS state
    /// (`net.slice1.0.weight`); heads under the lpips package's names (`lin0.model.1.weight`). The channel
    /// counts are read off the file. VGG's classifier is ignored.
    ///
    /// # Errors
    /// See [`WeightsError`].
    pub fn load(vgg: impl AsRef<Path>, heads: Option<&Path>, device: &Device) -> Result<Self, WeightsError> {
        let vgg = NamedTensors::read(vgg)?;
        let heads = heads.map(NamedTensors::read).transpose()?;
        Self::from_weights(vgg, heads, device)
    }

    /// [`load`](Self::load) from tensors that are read already.
    ///
    /// # Errors
    /// See [`WeightsError`].
    pub fn from_weights(
        mut vgg: NamedTensors,
        heads: Option<NamedTensors>,
        device: &Device,
    ) -> Result<Self, WeightsError> {
        let device = &device.clone().without_autodiff();
        // The heads keep their own file's name for errors; in a single file they lie beside VGG.
        let mut heads = heads.unwrap_or_else(|| vgg.clone());
        let known = |name: &str| name.starts_with("lin") && !name.starts_with("lins.");
        heads.rename(|name| known(name).then(|| name.to_string()));
        vgg.rename(torchvision_name);

        let mut channels = 3;
        let mut depths = Vec::with_capacity(DEPTHS.len());
        for (depth, numbers) in DEPTHS.iter().enumerate() {
            let mut convolutions = Vec::with_capacity(numbers.len());
            for number in *numbers {
                let convolution = take_convolution(&mut vgg, *number, channels, device)?;
                channels = convolution.weight.dims()[0];
                convolutions.push(convolution);
            }
            let head =
                heads.take_parameter(&format!("lin{depth}.model.1.weight"), [1, channels, 1, 1], device)?;
            depths.push(Depth { convolutions, head });
        }
        vgg.finish()?;
        heads.finish()?;
        Ok(Self { depths })
    }

    /// The distance of each pair of pictures; zero for equal ones.
    ///
    /// # Shapes
    /// - first, second: `[batch, 3, height, width]` in [-1, 1], sides of 16 pixels at least
    /// - result: `[batch]`
    pub fn forward(&self, first: Tensor<4>, second: Tensor<4>) -> Tensor<1> {
        let [batch, ..] = first.dims();
        let mut distance: Option<Tensor<4>> = None;
        let (mut first, mut second) = (to_vgg_input(first), to_vgg_input(second));
        for (number, depth) in self.depths.iter().enumerate() {
            first = depth.forward(first, number > 0);
            second = depth.forward(second, number > 0);
            let difference = unit_length(first.clone()) - unit_length(second.clone());
            let here = (difference.square() * depth.head.val()).sum_dim(1).mean_dim(2).mean_dim(3);
            distance = Some(match distance {
                Some(distance) => distance + here,
                None => here,
            });
        }
        distance.expect("there are five depths").reshape([batch])
    }
}

impl Depth {
    /// Features of this depth from those of the one above.
    fn forward(&self, mut features: Tensor<4>, pool_first: bool) -> Tensor<4> {
        if pool_first {
            features = max_pool2d(features, MaxPoolOptions::new([2, 2]));
        }
        for convolution in &self.convolutions {
            features = activation::relu(convolution.forward(features));
        }
        features
    }
}

/// [-1, 1] → what VGG was trained on.
fn to_vgg_input(pictures: Tensor<4>) -> Tensor<4> {
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

/// `features.N.…` for VGG's convolutions in either naming, nothing for the rest of a file.
fn torchvision_name(name: &str) -> Option<String> {
    if name.starts_with("features.") {
        return Some(name.to_string());
    }
    // net.slice3.10.weight → features.10.weight
    let (_slice, rest) = name.strip_prefix("net.slice")?.split_once('.')?;
    Some(format!("features.{rest}"))
}

fn take_convolution(
    vgg: &mut NamedTensors,
    number: usize,
    channels_in: usize,
    device: &Device,
) -> Result<Conv2d, WeightsError> {
    let name = format!("features.{number}");
    let [channels, ..] = vgg.dims::<4>(&format!("{name}.weight"), NETWORK)?;
    let mut convolution = Conv2dConfig::new([channels_in, channels], [3, 3])
        .with_padding(PaddingConfig2d::Explicit(1, 1, 1, 1))
        .init(device)
        .no_grad();
    convolution.weight =
        vgg.take_parameter(&format!("{name}.weight"), [channels, channels_in, 3, 3], device)?;
    convolution.bias = Some(vgg.take_parameter(&format!("{name}.bias"), [channels], device)?);
    Ok(convolution)
}
