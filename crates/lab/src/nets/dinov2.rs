//! DINOv2, a frozen vision transformer whose features the semantic infusion aligns with (Eq. 12–14).
//!
//! Published weights come under three name schemes, which [`DinoV2::load`] tells apart by itself; see `Names`.
//! Sizes S, B, L and g, with and without registers, have all their dimensions in the tensors' shapes.

use std::path::Path;

use burn::module::{Module, Param};
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{LayerNorm, Linear};
use burn::tensor::module::attention;
use burn::tensor::{Device, Tensor, TensorData, activation};
use serde::Deserialize;

use super::resize::{Bicubic, resize};
use super::weights::{NamedTensors, WeightsError};

const NETWORK: &str = "DINOv2";

/// Mean of ImageNet's red, green and blue in [0, 1].
const PIXEL_MEAN: [f32; 3] = [0.485, 0.456, 0.406];
/// Standard deviation of ImageNet's red, green and blue in [0, 1].
const PIXEL_DEVIATION: [f32; 3] = [0.229, 0.224, 0.225];

/// The dimensions of one DINOv2.
#[derive(Debug, Clone, PartialEq)]
pub struct DinoV2Config {
    /// Features of a token: 384, 768, 1024 or 1536 in the published networks.
    pub width: usize,
    /// Number of blocks.
    pub layers: usize,
    /// Attention heads; 64 features each in the published networks.
    pub heads: usize,
    /// Hidden features of the feed-forward layer ÷ `width`.
    pub mlp_ratio: f64,
    /// Side of a patch in pixels.
    pub patch: usize,
    /// Side in pixels of the pictures the position embeddings were trained for.
    pub picture_side: usize,
    /// Added to the variance in every layer norm.
    pub layer_norm_eps: f64,
    /// Number of register tokens (0 or 4 in the published networks).
    pub registers: usize,
    /// Whether the feed-forward layer is gated (SwiGLU, the largest network) and not a GELU one.
    pub swiglu: bool,
}

/// The part of transformers' `config.json` that shapes do not tell, where a file carries it as metadata.
#[derive(Deserialize)]
struct StoredConfig {
    num_attention_heads: usize,
    layer_norm_eps: f64,
}

impl DinoV2Config {
    /// Reads the dimensions off the shapes.
    fn of(weights: &NamedTensors, names: &Names) -> Result<Self, WeightsError> {
        let wrong = |reason: String| WeightsError::OtherNetwork {
            path: weights.path().to_path_buf(),
            network: NETWORK,
            reason,
        };
        let [width, _, patch, _] = weights.dims(&format!("{}.weight", names.patch_projection), NETWORK)?;
        let [_, positions, _] = weights.dims(names.positions, NETWORK)?;
        let grid = (positions.saturating_sub(1)).isqrt();
        if grid == 0 || grid * grid + 1 != positions {
            return Err(wrong(format!("{positions} positions are not one more than a square")));
        }
        let registers = match weights.contains(names.registers) {
            true => weights.dims::<3>(names.registers, NETWORK)?[1],
            false => 0,
        };
        let layers =
            (0..).take_while(|&layer| weights.contains(&names.in_block(layer, "norm1.weight"))).count();
        if layers == 0 {
            return Err(wrong(format!("`{}` is missing", names.in_block(0, "norm1.weight"))));
        }
        let gate = names.in_block(0, &format!("{}.weight", names.gate[0]));
        let swiglu = weights.contains(&gate);
        let hidden = match swiglu {
            true => weights.dims::<2>(&gate, NETWORK)?[0] * names.gate.len() / 2,
            false => weights.dims::<2>(&names.in_block(0, "mlp.fc1.weight"), NETWORK)?[0],
        };
        let stored =
            weights.metadata("config").and_then(|text| serde_json::from_str::<StoredConfig>(text).ok());
        let heads = stored.as_ref().map_or(width / 64, |stored| stored.num_attention_heads);
        if heads == 0 || width % heads != 0 {
            return Err(wrong(format!("width {width} does not divide into {heads} attention heads")));
        }
        Ok(Self {
            width,
            layers,
            heads,
            mlp_ratio: hidden as f64 / width as f64,
            patch,
            picture_side: grid * patch,
            layer_norm_eps: stored.map_or(1e-6, |stored| stored.layer_norm_eps),
            registers,
            swiglu,
        })
    }

    /// Side of the grid of trained positions.
    pub fn grid(&self) -> usize {
        self.picture_side / self.patch
    }

    /// Hidden features of the feed-forward layer.
    pub fn hidden(&self) -> usize {
        (self.mlp_ratio * self.width as f64).round() as usize
    }
}

/// A frozen DINOv2. Its weights never learn; gradients flow through it to its input if that tracks any.
#[derive(Module, Debug)]
pub struct DinoV2 {
    patch_projection: Conv2d,
    class_token: Param<Tensor<3>>,
    positions: Param<Tensor<3>>,
    register_tokens: Option<Param<Tensor<3>>>,
    blocks: Vec<Block>,
    norm: LayerNorm,
    #[module(skip)]
    config: DinoV2Config,
}

impl DinoV2 {
    /// Loads weights in any of the three name schemes from a safetensors or PyTorch file.
    ///
    /// Tensors beside the network (a classifier's head) are ignored; unknown tensors inside it are an error.
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
        let names = Self::keep_own(&mut weights)?;
        let config = DinoV2Config::of(&weights, names)?;
        // Frozen weights are constants: without autodiff they cost no bookkeeping in a training step.
        let device = &device.clone().without_autodiff();

        let DinoV2Config { width, patch, registers, .. } = config;
        let mut patch_projection =
            Conv2dConfig::new([3, width], [patch, patch]).with_stride([patch, patch]).init(device).no_grad();
        let prefix = names.patch_projection;
        patch_projection.weight =
            weights.take_parameter(&format!("{prefix}.weight"), [width, 3, patch, patch], device)?;
        patch_projection.bias = Some(weights.take_parameter(&format!("{prefix}.bias"), [width], device)?);

        let positions = 1 + config.grid() * config.grid();
        let network = Self {
            patch_projection,
            class_token: weights.take_parameter(names.class_token, [1, 1, width], device)?,
            positions: weights.take_parameter(names.positions, [1, positions, width], device)?,
            register_tokens: match registers {
                0 => None,
                _ => Some(weights.take_parameter(names.registers, [1, registers, width], device)?),
            },
            blocks: (0..config.layers)
                .map(|layer| Block::take(&mut weights, names, &config, layer, device))
                .collect::<Result<_, _>>()?,
            norm: weights.take_layer_norm(names.norm, width, config.layer_norm_eps, device)?,
            config,
        };
        weights.finish()?;
        Ok(network)
    }

    /// Drops what lies beside the network and a wrapper's prefix of the names, and tells their scheme.
    pub(super) fn keep_own(weights: &mut NamedTensors) -> Result<&'static Names, WeightsError> {
        let names = Names::recognise(weights)?;
        // Training hid patches behind this token; inference does not.
        weights.discard(names.mask_token);
        Ok(names)
    }

    /// The network's dimensions.
    pub fn config(&self) -> &DinoV2Config {
        &self.config
    }

    /// All tokens after the final norm, the class token first and the registers left out.
    ///
    /// # Shapes
    /// - pixels: `[batch, 3, height, width]`, normalised, sides multiples of the patch (a rest is cut off)
    /// - result: `[batch, 1 + grid height · grid width, width]`
    pub fn forward(&self, pixels: Tensor<4>) -> Tensor<3> {
        let patches = self.patch_projection.forward(pixels);
        let [batch, width, grid_height, grid_width] = patches.dims();
        let patches = patches.flatten::<3>(2, 3).swap_dims(1, 2);

        let class_token = self.class_token.val().expand([batch, 1, width]);
        let mut tokens =
            Tensor::cat(vec![class_token, patches], 1) + self.positions([grid_height, grid_width]);
        // Registers have no position, so they come in after the positions were added.
        if let Some(registers) = &self.register_tokens {
            let count = self.config.registers;
            let registers = registers.val().expand([batch, count, width]);
            let patches = tokens.clone().narrow(1, 1, grid_height * grid_width);
            tokens = Tensor::cat(vec![tokens.narrow(1, 0, 1), registers, patches], 1);
        }

        for block in &self.blocks {
            tokens = block.forward(tokens, self.config.heads);
        }
        let tokens = self.norm.forward(tokens);

        match self.config.registers {
            0 => tokens,
            count => {
                let patches = tokens.clone().narrow(1, 1 + count, grid_height * grid_width);
                Tensor::cat(vec![tokens.narrow(1, 0, 1), patches], 1)
            }
        }
    }

    /// Features of every patch of ordinary pictures: the target of the semantic infusion (Eq. 12).
    ///
    /// Pictures are resized to the nearest multiple of the patch (256 → 252 pixels for patches of 14) and
    /// normalised as the network was trained.
    ///
    /// # Shapes
    /// - pictures: `[batch, 3, height, width]` in [-1, 1]
    /// - result: `[batch, width, grid height, grid width]`
    pub fn patch_features(&self, pictures: Tensor<4>) -> Tensor<4> {
        let [batch, _, height, width] = pictures.dims();
        let grid = [height, width].map(|side| ((side + self.config.patch / 2) / self.config.patch).max(1));
        let pictures = resize(pictures, grid.map(|side| side * self.config.patch), Bicubic::Antialiased);

        // ((picture + 1) / 2 - mean) / deviation, as one factor and one offset.
        let device = pictures.device().without_autodiff();
        let colour = |values: [f32; 3]| {
            Tensor::<4>::from_data(TensorData::new(values.to_vec(), [1, 3, 1, 1]), &device)
        };
        let factor = colour(PIXEL_DEVIATION.map(|deviation| 0.5 / deviation));
        let offset = colour([0, 1, 2].map(|channel| (0.5 - PIXEL_MEAN[channel]) / PIXEL_DEVIATION[channel]));
        let tokens = self.forward(pictures * factor + offset);

        let patches = tokens.narrow(1, 1, grid[0] * grid[1]);
        patches.swap_dims(1, 2).reshape([batch, self.config.width, grid[0], grid[1]])
    }

    /// Position embeddings `[1, 1 + n, width]` for a grid of patches, resized from the trained grid.
    fn positions(&self, grid: [usize; 2]) -> Tensor<3> {
        let side = self.config.grid();
        let positions = self.positions.val();
        if grid == [side, side] {
            return positions;
        }
        let width = self.config.width;
        let patches = positions.clone().narrow(1, 1, side * side);
        let patches = patches.swap_dims(1, 2).reshape([1, width, side, side]);
        // The networks with registers were trained with antialiasing here, those without were not.
        let kind = if self.config.registers > 0 { Bicubic::Antialiased } else { Bicubic::Plain };
        let patches = resize(patches, grid, kind).flatten::<3>(2, 3).swap_dims(1, 2);
        Tensor::cat(vec![positions.narrow(1, 0, 1), patches], 1)
    }
}

/// One pre-norm transformer block with learned scales on both residual branches.
#[derive(Module, Debug)]
struct Block {
    norm1: LayerNorm,
    /// Queries, keys and values side by side: `[width, 3 · width]`.
    attention_in: Linear,
    attention_out: Linear,
    scale1: Param<Tensor<1>>,
    norm2: LayerNorm,
    feed_forward: FeedForward,
    scale2: Param<Tensor<1>>,
}

impl Block {
    fn take(
        weights: &mut NamedTensors,
        names: &Names,
        config: &DinoV2Config,
        layer: usize,
        device: &Device,
    ) -> Result<Self, WeightsError> {
        let DinoV2Config { width, layer_norm_eps, .. } = *config;
        let name = |name: &str| names.in_block(layer, name);
        let all = |parts: &[&str]| parts.iter().map(|part| name(part)).collect::<Vec<_>>();
        Ok(Self {
            norm1: weights.take_layer_norm(&name("norm1"), width, layer_norm_eps, device)?,
            attention_in: weights.take_linear(&all(names.attention_in), [width, 3 * width], device)?,
            attention_out: weights.take_linear(&all(&[names.attention_out]), [width, width], device)?,
            scale1: weights.take_parameter(&name(names.scale1), [width], device)?,
            norm2: weights.take_layer_norm(&name("norm2"), width, layer_norm_eps, device)?,
            feed_forward: match config.swiglu {
                true => FeedForward {
                    enter: weights.take_linear(&all(names.gate), [width, 2 * config.hidden()], device)?,
                    leave: weights.take_linear(&all(&[names.gated_out]), [config.hidden(), width], device)?,
                    swiglu: true,
                },
                false => FeedForward {
                    enter: weights.take_linear(&all(&["mlp.fc1"]), [width, config.hidden()], device)?,
                    leave: weights.take_linear(&all(&["mlp.fc2"]), [config.hidden(), width], device)?,
                    swiglu: false,
                },
            },
            scale2: weights.take_parameter(&name(names.scale2), [width], device)?,
        })
    }

    /// `[batch, tokens, width]` → the same.
    fn forward(&self, tokens: Tensor<3>, heads: usize) -> Tensor<3> {
        let attended = self.attend(self.norm1.forward(tokens.clone()), heads);
        let tokens = tokens + attended * self.scale1.val().unsqueeze();
        let changed = self.feed_forward.forward(self.norm2.forward(tokens.clone()));
        tokens + changed * self.scale2.val().unsqueeze()
    }

    fn attend(&self, tokens: Tensor<3>, heads: usize) -> Tensor<3> {
        let [batch, count, width] = tokens.dims();
        // [batch, tokens, 3 · width] → three of [batch, heads, tokens, width / heads]
        let all = self.attention_in.forward(tokens).reshape([batch, count, 3 * heads, width / heads]);
        let all = all.swap_dims(1, 2);
        let [query, key, value] = [0, 1, 2].map(|part| all.clone().narrow(1, part * heads, heads));
        let attended = attention(query, key, value, None, None, Default::default());
        self.attention_out.forward(attended.swap_dims(1, 2).reshape([batch, count, width]))
    }
}

/// GELU feed-forward, or the gated one of the largest network.
#[derive(Module, Debug)]
struct FeedForward {
    enter: Linear,
    leave: Linear,
    swiglu: bool,
}

impl FeedForward {
    /// `[batch, tokens, width]` → the same.
    fn forward(&self, tokens: Tensor<3>) -> Tensor<3> {
        let hidden = self.enter.forward(tokens);
        let hidden = if self.swiglu {
            let half = hidden.dims()[2] / 2;
            activation::silu(hidden.clone().narrow(2, 0, half)) * hidden.narrow(2, half, half)
        } else {
            activation::gelu(hidden)
        };
        self.leave.forward(hidden)
    }
}

/// The names of one scheme. Norms and the GELU feed-forward layer are called the same in all three.
pub(super) struct Names {
    /// A name that this scheme has and no other, in the first block.
    mark: &'static str,
    /// What every name begins with, apart from a wrapper's prefix such as `dinov2.`.
    roots: &'static [&'static str],
    class_token: &'static str,
    mask_token: &'static str,
    positions: &'static str,
    registers: &'static str,
    patch_projection: &'static str,
    norm: &'static str,
    block: &'static str,
    // Inside a block:
    attention_in: &'static [&'static str],
    attention_out: &'static str,
    scale1: &'static str,
    scale2: &'static str,
    gate: &'static [&'static str],
    gated_out: &'static str,
}

/// transformers 5.
const TRANSFORMERS: Names = Names {
    mark: "attention.q_proj.weight",
    roots: &["embeddings.", "encoder.", "layernorm."],
    class_token: "embeddings.cls_token",
    mask_token: "embeddings.mask_token",
    positions: "embeddings.position_embeddings",
    registers: "embeddings.register_tokens",
    patch_projection: "embeddings.patch_embeddings.projection",
    norm: "layernorm",
    block: "encoder.layer",
    attention_in: &["attention.q_proj", "attention.k_proj", "attention.v_proj"],
    attention_out: "attention.o_proj",
    scale1: "layer_scale1.lambda1",
    scale2: "layer_scale2.lambda1",
    gate: &["mlp.gate_proj", "mlp.up_proj"],
    gated_out: "mlp.down_proj",
};

/// Earlier transformers, and so most files on the hub.
const EARLIER_TRANSFORMERS: Names = Names {
    mark: "attention.attention.query.weight",
    attention_in: &["attention.attention.query", "attention.attention.key", "attention.attention.value"],
    attention_out: "attention.output.dense",
    gate: &["mlp.weights_in"],
    gated_out: "mlp.weights_out",
    ..TRANSFORMERS
};

/// The authors' own checkpoints.
const AUTHORS: Names = Names {
    mark: "attn.qkv.weight",
    roots: &["cls_token", "mask_token", "pos_embed", "register_tokens", "patch_embed.", "blocks.", "norm."],
    class_token: "cls_token",
    mask_token: "mask_token",
    positions: "pos_embed",
    registers: "register_tokens",
    patch_projection: "patch_embed.proj",
    norm: "norm",
    block: "blocks",
    attention_in: &["attn.qkv"],
    attention_out: "attn.proj",
    scale1: "ls1.gamma",
    scale2: "ls2.gamma",
    gate: &["mlp.w12"],
    gated_out: "mlp.w3",
};

impl Names {
    /// Finds the scheme of a file, takes a wrapper's prefix (`dinov2.`, `backbone.`, `teacher.backbone.`, …)
    /// off the names and drops what lies beside the network.
    fn recognise(weights: &mut NamedTensors) -> Result<&'static Self, WeightsError> {
        for scheme in [&TRANSFORMERS, &EARLIER_TRANSFORMERS, &AUTHORS] {
            let mark = scheme.in_block(0, scheme.mark);
            let prefix = weights.names().find_map(|name| name.strip_suffix(&mark).map(str::to_string));
            if let Some(prefix) = prefix {
                weights.rename(|name| {
                    let name = name.strip_prefix(&prefix)?;
                    scheme.roots.iter().any(|root| name.starts_with(root)).then(|| name.to_string())
                });
                return Ok(scheme);
            }
        }
        Err(WeightsError::OtherNetwork {
            path: weights.path().to_path_buf(),
            network: NETWORK,
            reason: "the names are neither transformers' (`encoder.layer.0.attention.…`) nor the authors' \
                     (`blocks.0.attn.qkv.weight`)"
                .to_string(),
        })
    }

    fn in_block(&self, layer: usize, name: &str) -> String {
        format!("{}.{layer}.{name}", self.block)
    }
}
