//! Weights of VAR (the visual autoregressive model that EarthMapper's tokenizer and transformer grew from) → ours.
//!
//! The tokenizer is taken over exactly: same pictures, same tokens, same reconstructions. The transformer is the
//! starting point of the joint one: VAR models one kind of picture given a class, so everything that knows about
//! places and about two modalities starts fresh; [`ImportReport`] says what.
//!
//! A file is a `.safetensors` or what `torch.save` writes, bare or inside a trainer's checkpoint. The configuration
//! comes from the shapes. Every tensor of the file must find its place: one that is missing, of another shape or left
//! over is an error that names it.

use std::fmt;
use std::path::{Path, PathBuf};

use burn::tensor::Device;
use earthmapper::config::{
    Activation, AdaptiveNorm, AttentionKind, ConfigError, EarthMapperConfig, TokenizerConfig,
    TransformerConfig,
};
use earthmapper::init::Init;
use earthmapper::model::FORMAT;
use earthmapper::weights::{self, HostTensor, HostTensors, Missing};
use earthmapper::{EarthMapper, MultiScaleTokenizer};

use crate::nets::weights::{NamedTensors, WeightsError};

const TOKENIZER: &str = "a VAR tokenizer's";
const TRANSFORMER: &str = "a VAR transformer's";

/// Why weights could not be imported.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The file cannot be read, or its tensors are not those of the network.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// The file was made for another number of scales.
    #[error(
        "{path}: made for {found} scales but {given} sides were given; give the sides it was trained with"
    )]
    Scales {
        /// The file.
        path: PathBuf,
        /// Scales in the file.
        found: usize,
        /// Sides given.
        given: usize,
    },
    /// The shapes make a configuration that cannot work here.
    #[error("{path}: {source}")]
    Config {
        /// The file.
        path: PathBuf,
        /// Which key.
        source: ConfigError,
    },
    /// The tensors do not fit the modules built for them.
    #[error("{path}: {source}")]
    Fit {
        /// The file.
        path: PathBuf,
        /// What does not fit.
        source: weights::WeightsError,
    },
}

/// What an imported transformer starts with, in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImportReport {
    /// Parts that were taken over.
    pub mapped: Vec<String>,
    /// Parts that start fresh, because VAR has nothing of the kind.
    pub fresh: Vec<String>,
    /// Tensors that were not needed.
    pub unneeded: Vec<String>,
}

impl fmt::Display for ImportReport {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let lists =
            [("taken over", &self.mapped), ("starts fresh", &self.fresh), ("not needed", &self.unneeded)];
        let lists = lists.into_iter().filter(|(_, lines)| !lines.is_empty());
        for (i, (title, lines)) in lists.enumerate() {
            write!(f, "{}{title}:", if i > 0 { "\n" } else { "" })?;
            lines.iter().try_for_each(|line| write!(f, "\n  {line}"))?;
        }
        Ok(())
    }
}

/// A VAR tokenizer as configuration and tensors under our names. `sides` are the sides of its token maps, coarse to
/// fine, which the file does not hold.
///
/// # Errors
/// When the tensors are not those of a VAR tokenizer, or `sides` do not suit it.
pub fn var_tokenizer(
    tensors: NamedTensors,
    sides: &[usize],
) -> Result<(TokenizerConfig, HostTensors), ImportError> {
    let path = tensors.path().to_path_buf();
    let mut source = Source::new(tensors, "quantize.embedding.weight", TOKENIZER)?;
    let counts = source.tensors.shape("quantize.ema_vocab_hit_SV").ok();
    // A damaged file may hold a scalar here, which has no first extent.
    let scales = counts.and_then(|shape| shape.first().copied());
    if let Some(found) = scales.filter(|&found| found != sides.len()) {
        return Err(ImportError::Scales { path, found, given: sides.len() });
    }
    let config = tokenizer_config(&source.tensors, sides)?;
    config.check().map_err(|source| ImportError::Config { path, source })?;

    // How often each code was used in training: a statistic, not a weight.
    source.tensors.discard("quantize.ema_vocab_hit_SV");
    let width = config.latent_width;
    source.copy("quantize.embedding.weight", "quantizer.codebook", &[config.vocabulary, width], None)?;
    for (i, phi) in phi_names(&source.tensors).into_iter().enumerate() {
        source.conv(&phi, &format!("quantizer.phi.{i}"), [width, width], 3)?;
    }
    source.conv("quant_conv", "before_quantizer", [width, width], 3)?;
    source.conv("post_quant_conv", "after_quantizer", [width, width], 3)?;
    encoder(&mut source, &config)?;
    decoder(&mut source, &config)?;
    Ok((config, source.finish()?))
}

/// A VAR transformer as configuration of the joint transformer and the tensors that map, under our names.
///
/// The number of heads is read from the learned attention scales; plain attention leaves no trace of it, so it is
/// `heads` or, without, one per 64 of the width as in every published model.
///
/// # Errors
/// When the tensors are not those of a VAR transformer that belongs to `tokenizer`.
pub fn var_transformer(
    tensors: NamedTensors,
    tokenizer: &TokenizerConfig,
    heads: Option<usize>,
) -> Result<(TransformerConfig, HostTensors, ImportReport), ImportError> {
    let path = tensors.path().to_path_buf();
    let mut source = Source::new(tensors, "pos_start", TRANSFORMER)?;
    let config = transformer_config(&source.tensors, heads)?;
    config.check().map_err(|source| ImportError::Config { path, source })?;

    let (width, scales) = (config.width(), tokenizer.scales());
    let hidden = (width as f64 * config.mlp_ratio).round() as usize;
    let mut unneeded = Vec::new();
    for (name, what) in [
        ("lvl_1L", "lvl_1L: the scale of each position follows from the sides"),
        ("attn_bias_for_masking", "attn_bias_for_masking: attention sees only what it may, without a mask"),
    ] {
        if source.tensors.contains(name) {
            source.tensors.discard(name);
            unneeded.push(what.to_string());
        }
    }
    source.copy("pos_1LC", "position", &[1, scales.total(), width], Some(&[scales.total(), width]))?;
    source.copy(
        "pos_start",
        "start_position",
        &[1, scales.tokens(0), width],
        Some(&[scales.tokens(0), width]),
    )?;
    source.copy("lvl_embed.weight", "level", &[scales.len(), width], None)?;
    source.linear("word_embed", "word_embedding", [tokenizer.latent_width, width])?;
    source.linear("head_nm.ada_lin.1", "head_modulation", [width, 2 * width])?;
    source.linear("head", "head", [width, tokenizer.vocabulary])?;
    if config.adaptive_norm == AdaptiveNorm::Shared {
        source.linear("shared_ada_lin.1", "shared_modulation", [width, 6 * width])?;
    }
    for i in 0..config.depth {
        block(&mut source, &config, i, hidden)?;
    }
    let classes = mean_class(&mut source, width)?;
    let report = ImportReport {
        mapped: vec![
            format!(
                "{} blocks of width {width}, {} heads: attention, feed-forward, norms",
                config.depth,
                config.heads()
            ),
            "word embedding, positions, start position, level embedding".into(),
            "head and the norm before it".into(),
            format!(
                "mean of the {classes} class embeddings → the condition of a picture without a known place"
            ),
        ],
        fresh: vec![
            "coordinate encoder: the place and the ground size of a pixel".into(),
            format!("modality embedding of {} modalities", config.modalities.len()),
        ],
        unneeded,
    };
    Ok((config, source.finish()?, report))
}

/// Reads a VAR tokenizer's file and builds the tokenizer.
///
/// # Errors
/// As [`var_tokenizer`], or when the file cannot be read.
pub fn import_tokenizer(
    path: &Path,
    sides: &[usize],
    device: &Device,
) -> Result<(TokenizerConfig, MultiScaleTokenizer), ImportError> {
    let (config, tensors) = var_tokenizer(NamedTensors::read(path)?, sides)?;
    let fresh = MultiScaleTokenizer::new(&config, &mut Init::new(0, device));
    let tokenizer = weights::apply(fresh, tensors, Missing::Refuse)
        .map_err(|source| ImportError::Fit { path: path.into(), source })?;
    Ok((config, tokenizer))
}

/// Reads the two files of a VAR model, tokenizer and transformer, and builds a joint model to train on from there.
///
/// # Errors
/// As [`var_tokenizer`] and [`var_transformer`], or when a file cannot be read.
pub fn import_var(
    vae: &Path,
    var: &Path,
    sides: &[usize],
    heads: Option<usize>,
    name: &str,
    device: &Device,
) -> Result<(EarthMapper, ImportReport), ImportError> {
    let (tokenizer_config, tokenizer) = import_tokenizer(vae, sides, device)?;
    let (transformer, tensors, report) = var_transformer(NamedTensors::read(var)?, &tokenizer_config, heads)?;
    let config = EarthMapperConfig { format: FORMAT, name: name.into(), transformer, ..Default::default() };
    let mut model = EarthMapper::new(config, tokenizer_config, 0, device);
    model.tokenizer = tokenizer;
    model.transformer = weights::apply(model.transformer, tensors, Missing::Keep)
        .map_err(|source| ImportError::Fit { path: var.into(), source })?;
    Ok((model, report))
}

/// Tensors on their way from VAR's names to ours.
struct Source {
    tensors: NamedTensors,
    taken: HostTensors,
}

impl Source {
    /// `landmark` is a tensor that every such network has: what stands before it is the name of the dictionary that a
    /// trainer's checkpoint keeps the network in, and what lies outside that dictionary is the trainer's affair.
    fn new(mut tensors: NamedTensors, landmark: &str, network: &'static str) -> Result<Self, WeightsError> {
        let found = tensors.names().filter(|name| {
            name.strip_suffix(landmark).is_some_and(|before| before.is_empty() || before.ends_with('.'))
        });
        let Some(found) = found.min_by_key(|name| name.len()) else {
            return Err(WeightsError::OtherNetwork {
                path: tensors.path().into(),
                network,
                reason: format!("there is no `{landmark}`"),
            });
        };
        let before = found[..found.len() - landmark.len()].to_string();
        // Files of reference numbers hold inputs and outputs beside the weights.
        tensors.rename(|name| {
            name.strip_prefix(&before).filter(|name| !name.starts_with("case.")).map(str::to_string)
        });
        Ok(Self { tensors, taken: HostTensors::new() })
    }

    /// Moves one tensor; `as_shape` is its shape here when that differs by dimensions of one.
    fn copy(
        &mut self,
        theirs: &str,
        ours: &str,
        shape: &[usize],
        as_shape: Option<&[usize]>,
    ) -> Result<(), WeightsError> {
        let values = self.tensors.take(theirs, shape)?;
        self.put(ours, as_shape.unwrap_or(shape), values);
        Ok(())
    }

    fn put(&mut self, ours: &str, shape: &[usize], values: Vec<f32>) {
        self.taken.insert(ours.into(), HostTensor { shape: shape.to_vec(), values });
    }

    /// Weight and bias of a square convolution, which both sides keep as `[output, input, kernel, kernel]`.
    fn conv(
        &mut self,
        theirs: &str,
        ours: &str,
        [input, output]: [usize; 2],
        kernel: usize,
    ) -> Result<(), WeightsError> {
        let shape = [output, input, kernel, kernel];
        self.copy(&format!("{theirs}.weight"), &format!("{ours}.weight"), &shape, None)?;
        self.copy(&format!("{theirs}.bias"), &format!("{ours}.bias"), &[output], None)
    }

    /// Gain and bias of a norm: PyTorch calls them weight and bias, Burn gamma and beta.
    fn norm(&mut self, theirs: &str, ours: &str, width: usize) -> Result<(), WeightsError> {
        self.copy(&format!("{theirs}.weight"), &format!("{ours}.gamma"), &[width], None)?;
        self.copy(&format!("{theirs}.bias"), &format!("{ours}.beta"), &[width], None)
    }

    /// Weight and bias of a linear layer.
    fn linear(&mut self, theirs: &str, ours: &str, [input, output]: [usize; 2]) -> Result<(), WeightsError> {
        self.linear_weight(&format!("{theirs}.weight"), &format!("{ours}.weight"), [input, output])?;
        self.copy(&format!("{theirs}.bias"), &format!("{ours}.bias"), &[output], None)
    }

    /// PyTorch keeps a linear weight as `[output, input]`, Burn as `[input, output]`.
    fn linear_weight(
        &mut self,
        theirs: &str,
        ours: &str,
        [input, output]: [usize; 2],
    ) -> Result<(), WeightsError> {
        let rows = self.tensors.take(theirs, &[output, input])?;
        let mut transposed = vec![0.0; rows.len()];
        for (o, row) in rows.chunks(input.max(1)).enumerate() {
            for (i, value) in row.iter().enumerate() {
                transposed[i * output + o] = *value;
            }
        }
        self.put(ours, &[input, output], transposed);
        Ok(())
    }

    /// Norm, convolution, norm, convolution, and a shortcut where the width changes.
    fn residual_block(
        &mut self,
        theirs: &str,
        ours: &str,
        [input, output]: [usize; 2],
    ) -> Result<(), WeightsError> {
        self.norm(&format!("{theirs}.norm1"), &format!("{ours}.norm1"), input)?;
        self.conv(&format!("{theirs}.conv1"), &format!("{ours}.conv1"), [input, output], 3)?;
        self.norm(&format!("{theirs}.norm2"), &format!("{ours}.norm2"), output)?;
        self.conv(&format!("{theirs}.conv2"), &format!("{ours}.conv2"), [output, output], 3)?;
        if input != output {
            self.conv(&format!("{theirs}.nin_shortcut"), &format!("{ours}.shortcut"), [input, output], 1)?;
        }
        Ok(())
    }

    fn spatial_attention(&mut self, theirs: &str, ours: &str, width: usize) -> Result<(), WeightsError> {
        self.norm(&format!("{theirs}.norm"), &format!("{ours}.norm"), width)?;
        self.conv(&format!("{theirs}.qkv"), &format!("{ours}.qkv"), [width, 3 * width], 1)?;
        self.conv(&format!("{theirs}.proj_out"), &format!("{ours}.out"), [width, width], 1)
    }

    /// `half` is `encoder` or `decoder`, which both sides call the same.
    fn middle(&mut self, half: &str, attention: bool, width: usize) -> Result<(), WeightsError> {
        let both = [width, width];
        self.residual_block(&format!("{half}.mid.block_1"), &format!("{half}.middle.block1"), both)?;
        if attention {
            self.spatial_attention(
                &format!("{half}.mid.attn_1"),
                &format!("{half}.middle.attention"),
                width,
            )?;
        }
        self.residual_block(&format!("{half}.mid.block_2"), &format!("{half}.middle.block2"), both)
    }

    fn finish(self) -> Result<HostTensors, WeightsError> {
        self.tensors.finish()?;
        Ok(self.taken)
    }
}

fn tokenizer_config(tensors: &NamedTensors, sides: &[usize]) -> Result<TokenizerConfig, WeightsError> {
    let other = |reason: String| WeightsError::OtherNetwork {
        path: tensors.path().into(),
        network: TOKENIZER,
        reason,
    };
    let [vocabulary, latent_width] = tensors.dims("quantize.embedding.weight", TOKENIZER)?;
    let [channels, ..] = tensors.dims::<4>("encoder.conv_in.weight", TOKENIZER)?;
    let levels = count(tensors, |i| format!("encoder.down.{i}.block.0.conv1.weight"));
    let multipliers = (0..levels).map(|i| {
        let [width, ..] = tensors.dims::<4>(&format!("encoder.down.{i}.block.0.conv1.weight"), TOKENIZER)?;
        match width.checked_div(channels).filter(|multiplier| multiplier * channels == width) {
            Some(multiplier) => Ok(multiplier),
            None => Err(other(format!("level {i} has {width} channels, no multiple of {channels}"))),
        }
    });
    let config = TokenizerConfig {
        sides: sides.to_vec(),
        vocabulary,
        latent_width,
        quantizer_depth: 1,
        fold: 1,
        channels,
        multipliers: multipliers.collect::<Result<_, _>>()?,
        residual_blocks: count(tensors, |i| format!("encoder.down.0.block.{i}.conv1.weight")),
        attention: tensors.contains("encoder.mid.attn_1.qkv.weight"),
        linear_path: false,
        phi_count: phi_names(tensors).len(),
        phi_ratio: 0.5,
        picture_side: 0,
        decoder: None,
    };
    if config.multipliers.is_empty() || config.multipliers.len() > 8 {
        return Err(other(format!("{levels} levels in the encoder")));
    }
    let picture_side = sides.last().map_or(0, |side| side * config.stride());
    Ok(TokenizerConfig { picture_side, ..config })
}

/// Prefixes of the convolutions φ: some shared over neighbouring scales (the published model), one for all, or one
/// for each.
fn phi_names(tensors: &NamedTensors) -> Vec<String> {
    let listed = |list: &str| -> Vec<String> {
        let number = count(tensors, |i| format!("quantize.quant_resi.{list}{i}.weight"));
        (0..number).map(|i| format!("quantize.quant_resi.{list}{i}")).collect()
    };
    if tensors.contains("quantize.quant_resi.qresi.weight") {
        return vec!["quantize.quant_resi.qresi".into()];
    }
    [listed("qresi_ls."), listed("")].concat()
}

/// How many tensors there are of names numbered from 0.
fn count(tensors: &NamedTensors, name: impl Fn(usize) -> String) -> usize {
    (0..).take_while(|&i| tensors.contains(&name(i))).count()
}

fn encoder(source: &mut Source, config: &TokenizerConfig) -> Result<(), WeightsError> {
    let last = config.multipliers.len() - 1;
    let mut width = config.channels;
    source.conv("encoder.conv_in", "encoder.conv_in", [3, width], 3)?;
    for (i, multiplier) in config.multipliers.iter().enumerate() {
        let (theirs, ours) = (format!("encoder.down.{i}"), format!("encoder.levels.{i}"));
        let output = config.channels * multiplier;
        for j in 0..config.residual_blocks {
            source.residual_block(
                &format!("{theirs}.block.{j}"),
                &format!("{ours}.blocks.{j}"),
                [width, output],
            )?;
            width = output;
            if config.attention && i == last {
                source.spatial_attention(
                    &format!("{theirs}.attn.{j}"),
                    &format!("{ours}.attentions.{j}"),
                    width,
                )?;
            }
        }
        if i < last {
            source.conv(
                &format!("{theirs}.downsample.conv"),
                &format!("{ours}.resample"),
                [width, width],
                3,
            )?;
        }
    }
    source.middle("encoder", config.attention, width)?;
    source.norm("encoder.norm_out", "encoder.norm_out", width)?;
    source.conv("encoder.conv_out", "encoder.conv_out", [width, config.latent_width], 3)
}

fn decoder(source: &mut Source, config: &TokenizerConfig) -> Result<(), WeightsError> {
    let shape = config.decoder_shape();
    let last = shape.multipliers.len() - 1;
    let mut width = shape.channels * shape.multipliers[last];
    source.conv("decoder.conv_in", "decoder.conv_in", [config.latent_width, width], 3)?;
    source.middle("decoder", config.attention, width)?;
    for (i, multiplier) in shape.multipliers.iter().enumerate().rev() {
        let (theirs, ours) = (format!("decoder.up.{i}"), format!("decoder.levels.{i}"));
        let output = shape.channels * multiplier;
        for j in 0..=shape.residual_blocks {
            source.residual_block(
                &format!("{theirs}.block.{j}"),
                &format!("{ours}.blocks.{j}"),
                [width, output],
            )?;
            width = output;
            if config.attention && i == last {
                source.spatial_attention(
                    &format!("{theirs}.attn.{j}"),
                    &format!("{ours}.attentions.{j}"),
                    width,
                )?;
            }
        }
        if i > 0 {
            source.conv(
                &format!("{theirs}.upsample.conv"),
                &format!("{ours}.resample"),
                [width, width],
                3,
            )?;
        }
    }
    source.norm("decoder.norm_out", "decoder.norm_out", width)?;
    source.conv("decoder.conv_out", "decoder.conv_out", [width, 3], 3)
}

fn transformer_config(
    tensors: &NamedTensors,
    heads: Option<usize>,
) -> Result<TransformerConfig, WeightsError> {
    let [_, _, width] = tensors.dims("pos_start", TRANSFORMER)?;
    let [hidden, _] = tensors.dims("blocks.0.ffn.fc1.weight", TRANSFORMER)?;
    let learned_scale = "blocks.0.attn.scale_mul_1H11";
    let (attention, heads) = match tensors.contains(learned_scale) {
        true => (AttentionKind::L2, tensors.dims::<4>(learned_scale, TRANSFORMER)?[1]),
        false => (AttentionKind::Dot, heads.unwrap_or(width / 64)),
    };
    Ok(TransformerConfig {
        depth: count(tensors, |i| format!("blocks.{i}.attn.mat_qkv.weight")),
        width,
        // 0 would stand for the depth.
        heads: heads.max(1),
        mlp_ratio: hidden as f64 / width.max(1) as f64,
        attention,
        adaptive_norm: match tensors.contains("shared_ada_lin.1.weight") {
            true => AdaptiveNorm::Shared,
            false => AdaptiveNorm::PerBlock,
        },
        activation: Activation::GeluTanh,
        norm_epsilon: 1e-6,
        ..Default::default()
    })
}

fn block(
    source: &mut Source,
    config: &TransformerConfig,
    i: usize,
    hidden: usize,
) -> Result<(), WeightsError> {
    let (theirs, width) = (format!("blocks.{i}"), config.width());
    let attention = format!("{theirs}.attn");
    source.linear_weight(
        &format!("{attention}.mat_qkv.weight"),
        &format!("{theirs}.attention.qkv.weight"),
        [width, 3 * width],
    )?;
    // VAR has no bias on the keys, which would not change the attention: its zeros are a constant that it stores.
    let mut bias = source.tensors.take(&format!("{attention}.q_bias"), &[width])?;
    bias.extend(source.tensors.take(&format!("{attention}.zero_k_bias"), &[width])?);
    bias.extend(source.tensors.take(&format!("{attention}.v_bias"), &[width])?);
    source.put(&format!("{theirs}.attention.qkv.bias"), &[3 * width], bias);
    if config.attention == AttentionKind::L2 {
        let (scale, shape) = (format!("{theirs}.attention.log_scale"), [1, config.heads(), 1, 1]);
        source.copy(&format!("{attention}.scale_mul_1H11"), &scale, &shape, None)?;
    }
    source.linear(&format!("{attention}.proj"), &format!("{theirs}.attention.out"), [width, width])?;
    source.linear(&format!("{theirs}.ffn.fc1"), &format!("{theirs}.up"), [width, hidden])?;
    source.linear(&format!("{theirs}.ffn.fc2"), &format!("{theirs}.down"), [hidden, width])?;
    match config.adaptive_norm {
        AdaptiveNorm::PerBlock => {
            source.linear(&format!("{theirs}.ada_lin.1"), &format!("{theirs}.modulation"), [width, 6 * width])
        }
        AdaptiveNorm::Shared => {
            let (offset, shape) = (format!("{theirs}.offset"), [1, 6 * width]);
            source.copy(&format!("{theirs}.ada_gss"), &offset, &[1, 1, 6, width], Some(&shape))
        }
    }
}

/// The mean class embedding becomes the condition of a picture whose place is not known: the middle of what VAR's
/// blocks have seen as a condition. Gives back the number of classes ("none" among them).
fn mean_class(source: &mut Source, width: usize) -> Result<usize, WeightsError> {
    let [classes, _] = source.tensors.dims("class_emb.weight", TRANSFORMER)?;
    let rows = source.tensors.take("class_emb.weight", &[classes, width])?;
    let mut mean = vec![0.0; width];
    for row in rows.chunks(width.max(1)) {
        mean.iter_mut().zip(row).for_each(|(sum, value)| *sum += value / classes as f32);
    }
    source.put("geo_embedding.nowhere", &[1, width], mean);
    Ok(classes)
}
