//! Weights of VAR (arXiv 2404.02905) → our modules: the tokenizer exactly, the transformer as the start of a joint one.

use std::path::Path;

use burn::tensor::Device;
use earthmapper::config::{Activation, AdaptiveNorm, AttentionKind, ConfigError};
use earthmapper::init::Init;
use earthmapper::model::FORMAT;
use earthmapper::tokenizer::MultiScaleTokenizer;
use earthmapper::weights::{HostTensor, HostTensors, Missing, WeightsError as MismatchError, apply};
use earthmapper::{EarthMapper, EarthMapperConfig, JointTransformer, Modality, TokenizerConfig, TransformerConfig};

use crate::nets::{NamedTensors, WeightsError};

/// Why weights cannot be imported.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The file is damaged, is another network's, or lacks a tensor.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// The configuration that the shapes tell cannot work.
    #[error("the weights tell a configuration that cannot work: {0}")]
    Config(#[from] ConfigError),
    /// Names or shapes do not fit together.
    #[error(transparent)]
    Mismatch(#[from] MismatchError),
    /// Tensors that mean something, but nothing that is known here.
    #[error("{file}: {count} tensors are not VAR's, among them {first}; is it another network?")]
    Foreign {
        /// The file.
        file: String,
        /// How many.
        count: usize,
        /// One of them.
        first: String,
    },
}

/// Tensors under our names that are taken out of a file under its own.
struct Taking {
    source: NamedTensors,
    taken: HostTensors,
}

impl Taking {
    fn shape(&self, name: &str) -> Result<Vec<usize>, WeightsError> {
        Ok(self.source.shape(name)?.to_vec())
    }

    /// A tensor as it is.
    fn keep(&mut self, ours: String, theirs: &str) -> Result<(), WeightsError> {
        let shape = self.shape(theirs)?;
        let values = self.source.take(theirs, &shape)?;
        self.taken.insert(ours, HostTensor { shape, values });
        Ok(())
    }

    /// A tensor of other dimensions with the same values in the same order.
    fn reshape(&mut self, ours: String, theirs: &str, shape: Vec<usize>) -> Result<(), WeightsError> {
        let old = self.shape(theirs)?;
        let values = self.source.take(theirs, &old)?;
        self.taken.insert(ours, HostTensor { shape, values });
        Ok(())
    }

    /// Weight and bias, kept as they are.
    fn conv(&mut self, ours: &str, theirs: &str) -> Result<(), WeightsError> {
        ["weight", "bias"].iter().try_for_each(|part| self.keep(format!("{ours}.{part}"), &format!("{theirs}.{part}")))
    }

    /// A norm's gain and offset, which Burn calls gamma and beta.
    fn norm(&mut self, ours: &str, theirs: &str) -> Result<(), WeightsError> {
        self.keep(format!("{ours}.gamma"), &format!("{theirs}.weight"))?;
        self.keep(format!("{ours}.beta"), &format!("{theirs}.bias"))
    }

    /// A linear layer: PyTorch stores `[out, in]`, Burn `[in, out]`.
    fn linear(&mut self, ours: &str, theirs: &str) -> Result<(), WeightsError> {
        self.transposed(format!("{ours}.weight"), &format!("{theirs}.weight"))?;
        self.keep(format!("{ours}.bias"), &format!("{theirs}.bias"))
    }

    fn transposed(&mut self, ours: String, theirs: &str) -> Result<(), WeightsError> {
        let [rows, columns] = self.source.dims::<2>(theirs, "VAR")?;
        let values = self.source.take(theirs, &[rows, columns])?;
        let turned = (0..columns).flat_map(|c| values.iter().skip(c).step_by(columns)).copied().collect();
        self.taken.insert(ours, HostTensor { shape: vec![columns, rows], values: turned });
        Ok(())
    }

    /// Everything that was taken, when nothing is left but what is known to be unneeded.
    fn finish(self, unneeded: &[&str]) -> Result<HostTensors, ImportError> {
        let left = self.source.names().filter(|name| !unneeded.iter().any(|known| name.starts_with(known)));
        let left: Vec<String> = left.map(str::to_string).collect();
        match left.first() {
            None => Ok(self.taken),
            Some(first) => Err(ImportError::Foreign {
                file: self.source.path().display().to_string(),
                count: left.len(),
                first: first.clone(),
            }),
        }
    }
}

/// VAR's tokenizer. The configuration comes from the tensors' shapes; `sides` are not in them.
///
/// # Errors
/// When the tensors are not VAR's tokenizer.
pub fn var_tokenizer(tensors: NamedTensors, sides: &[usize]) -> Result<(TokenizerConfig, HostTensors), ImportError> {
    let mut take = Taking { source: tensors, taken: HostTensors::new() };
    let [channels, ..] = take.source.dims::<4>("encoder.conv_in.weight", "VAR's tokenizer")?;
    let [vocabulary, latent_width] = take.source.dims::<2>("quantize.embedding.weight", "VAR's tokenizer")?;
    let has = |take: &Taking, name: String| take.source.contains(&name);
    let levels = (0..).take_while(|i| has(&take, format!("encoder.down.{i}.block.0.conv1.weight"))).count();
    let blocks = (0..).take_while(|i| has(&take, format!("encoder.down.0.block.{i}.conv1.weight"))).count();
    let attention = has(&take, "encoder.mid.attn_1.qkv.weight".into());
    let shared = "quantize.quant_resi.qresi";
    let one_phi = has(&take, format!("{shared}.weight"));
    let phi_count = match one_phi {
        true => 1,
        false => (0..).take_while(|i| has(&take, format!("{shared}_ls.{i}.weight"))).count(),
    };
    let multipliers = (0..levels)
        .map(|i| Ok(take.shape(&format!("encoder.down.{i}.block.0.conv2.weight"))?[0] / channels))
        .collect::<Result<Vec<_>, WeightsError>>()?;
    let mut config = TokenizerConfig {
        sides: sides.to_vec(),
        vocabulary,
        latent_width,
        channels,
        multipliers,
        residual_blocks: blocks,
        attention,
        phi_count,
        ..Default::default()
    };
    config.picture_side = sides.last().copied().unwrap_or(0) * config.stride();
    config.check()?;

    for (half, up_down, ours_blocks, sample) in
        [("encoder", "down", blocks, "downsample"), ("decoder", "up", blocks + 1, "upsample")]
    {
        take.conv(&format!("{half}.conv_in"), &format!("{half}.conv_in"))?;
        take.conv(&format!("{half}.conv_out"), &format!("{half}.conv_out"))?;
        take.norm(&format!("{half}.norm_out"), &format!("{half}.norm_out"))?;
        for i in 0..levels {
            let (ours, theirs) = (format!("{half}.levels.{i}"), format!("{half}.{up_down}.{i}"));
            for j in 0..ours_blocks {
                residual(&mut take, &format!("{ours}.blocks.{j}"), &format!("{theirs}.block.{j}"))?;
                if attention && i + 1 == levels {
                    spatial(&mut take, &format!("{ours}.attentions.{j}"), &format!("{theirs}.attn.{j}"))?;
                }
            }
            if has(&take, format!("{theirs}.{sample}.conv.weight")) {
                take.conv(&format!("{ours}.resample"), &format!("{theirs}.{sample}.conv"))?;
            }
        }
        residual(&mut take, &format!("{half}.middle.block1"), &format!("{half}.mid.block_1"))?;
        residual(&mut take, &format!("{half}.middle.block2"), &format!("{half}.mid.block_2"))?;
        if attention {
            spatial(&mut take, &format!("{half}.middle.attention"), &format!("{half}.mid.attn_1"))?;
        }
    }
    take.conv("before_quantizer", "quant_conv")?;
    take.conv("after_quantizer", "post_quant_conv")?;
    take.keep("quantizer.codebook".into(), "quantize.embedding.weight")?;
    for i in 0..phi_count {
        let theirs = if one_phi { shared.to_string() } else { format!("{shared}_ls.{i}") };
        take.conv(&format!("quantizer.phi.{i}"), &theirs)?;
    }
    // A running count of code use, and test cases that some files carry.
    Ok((config, take.finish(&["quantize.ema_vocab_hit_SV", "case."])?))
}

fn residual(take: &mut Taking, ours: &str, theirs: &str) -> Result<(), WeightsError> {
    for i in [1, 2] {
        take.norm(&format!("{ours}.norm{i}"), &format!("{theirs}.norm{i}"))?;
        take.conv(&format!("{ours}.conv{i}"), &format!("{theirs}.conv{i}"))?;
    }
    if take.source.contains(&format!("{theirs}.nin_shortcut.weight")) {
        take.conv(&format!("{ours}.shortcut"), &format!("{theirs}.nin_shortcut"))?;
    }
    Ok(())
}

fn spatial(take: &mut Taking, ours: &str, theirs: &str) -> Result<(), WeightsError> {
    take.norm(&format!("{ours}.norm"), &format!("{theirs}.norm"))?;
    take.conv(&format!("{ours}.qkv"), &format!("{theirs}.qkv"))?;
    take.conv(&format!("{ours}.out"), &format!("{theirs}.proj_out"))
}

/// What an imported transformer knows, in words.
pub const REPORT: &str = "mapped from VAR: blocks, adaptive norms, word embedding, positions, levels and head; the mean of \
the class embeddings becomes the \"nowhere\" vector; fresh: the coordinate encoder and the modality embedding";

/// VAR's transformer, with the class embeddings beside: the configuration, the tensors under our names, and the class
/// embeddings `[classes + 1, width]`, the last being "no class".
///
/// `heads` is asked for only when the tensors do not tell (plain dot attention); without it heads are 64 wide.
///
/// # Errors
/// When the tensors are not VAR's transformer on such a tokenizer.
pub fn var_transformer(
    tensors: NamedTensors,
    tokenizer: &TokenizerConfig,
    heads: Option<usize>,
) -> Result<(TransformerConfig, HostTensors, HostTensor), ImportError> {
    let mut take = Taking { source: tensors, taken: HostTensors::new() };
    let [width, _] = take.source.dims::<2>("word_embed.weight", "VAR's transformer")?;
    let depth = (0..).take_while(|i| take.source.contains(&format!("blocks.{i}.ffn.fc1.weight"))).count();
    let shared = take.source.contains("shared_ada_lin.1.weight");
    let scale = "blocks.0.attn.scale_mul_1H11";
    let l2 = take.source.contains(scale);
    let heads = if l2 { take.shape(scale)?[1] } else { heads.unwrap_or((width / 64).max(1)) };
    let hidden = take.shape("blocks.0.ffn.fc1.weight")?[0];
    let config = TransformerConfig {
        depth,
        width,
        heads,
        mlp_ratio: hidden as f64 / width as f64,
        attention: if l2 { AttentionKind::L2 } else { AttentionKind::Dot },
        adaptive_norm: if shared { AdaptiveNorm::Shared } else { AdaptiveNorm::PerBlock },
        activation: Activation::GeluTanh,
        modalities: vec![Modality::Satellite, Modality::Map],
        ..Default::default()
    };
    config.check()?;
    for i in 0..depth {
        let (ours, theirs) = (format!("blocks.{i}"), format!("blocks.{i}"));
        take.transposed(format!("{ours}.attention.qkv.weight"), &format!("{theirs}.attn.mat_qkv.weight"))?;
        let mut bias = Vec::with_capacity(3 * width);
        for part in ["q_bias", "zero_k_bias", "v_bias"] {
            bias.extend(take.source.take(&format!("{theirs}.attn.{part}"), &[width])?);
        }
        take.taken.insert(format!("{ours}.attention.qkv.bias"), HostTensor { shape: vec![3 * width], values: bias });
        take.linear(&format!("{ours}.attention.out"), &format!("{theirs}.attn.proj"))?;
        if l2 {
            take.keep(format!("{ours}.attention.log_scale"), &format!("{theirs}.attn.scale_mul_1H11"))?;
        }
        take.linear(&format!("{ours}.up"), &format!("{theirs}.ffn.fc1"))?;
        take.linear(&format!("{ours}.down"), &format!("{theirs}.ffn.fc2"))?;
        match shared {
            true => take.reshape(format!("{ours}.offset"), &format!("{theirs}.ada_gss"), vec![1, 6 * width])?,
            false => take.linear(&format!("{ours}.modulation"), &format!("{theirs}.ada_lin.1"))?,
        }
    }
    if shared {
        take.linear("shared_modulation", "shared_ada_lin.1")?;
    }
    take.linear("head_modulation", "head_nm.ada_lin.1")?;
    take.linear("head", "head")?;
    take.linear("word_embedding", "word_embed")?;
    let scales = tokenizer.scales();
    take.reshape("position".into(), "pos_1LC", vec![scales.total(), width])?;
    take.reshape("start_position".into(), "pos_start", vec![scales.tokens(0), width])?;
    take.keep("level".into(), "lvl_embed.weight")?;
    let shape = take.shape("class_emb.weight")?;
    let classes = HostTensor { values: take.source.take("class_emb.weight", &shape)?, shape };
    let tensors = take.finish(&["lvl_1L", "attn_bias_for_masking", "case."])?;
    Ok((config, tensors, classes))
}

/// Reads VAR's tokenizer into a module.
///
/// # Errors
/// When the file is not VAR's tokenizer.
pub fn import_tokenizer(
    path: &Path,
    sides: &[usize],
    device: &Device,
) -> Result<(TokenizerConfig, MultiScaleTokenizer), ImportError> {
    let (config, tensors) = var_tokenizer(NamedTensors::read(path)?, sides)?;
    let fresh = MultiScaleTokenizer::new(&config, &mut Init::new(0, device));
    Ok((config, apply(fresh, tensors, Missing::Refuse)?))
}

/// Reads VAR's tokenizer and transformer as the start of a joint model; the second value says what maps.
///
/// # Errors
/// When a file is not what it should be.
pub fn import_var(
    tokenizer: &Path,
    transformer: &Path,
    sides: &[usize],
    heads: Option<usize>,
    device: &Device,
) -> Result<(EarthMapper, String), ImportError> {
    let (tokenizer_config, tokenizer) = import_tokenizer(tokenizer, sides, device)?;
    let (config, mut tensors, classes) = var_transformer(NamedTensors::read(transformer)?, &tokenizer_config, heads)?;
    let width = classes.shape[1];
    let mut mean = vec![0.0f32; width];
    for row in classes.values.chunks(width) {
        mean.iter_mut().zip(row).for_each(|(sum, value)| *sum += value / classes.shape[0] as f32);
    }
    tensors.insert("geo_embedding.nowhere".into(), HostTensor { shape: vec![1, width], values: mean });
    let fresh = JointTransformer::new(&config, &tokenizer_config, &mut Init::new(0, device));
    let transformer = apply(fresh, tensors, Missing::Keep)?;
    let config = EarthMapperConfig {
        format: FORMAT,
        name: "var-start".into(),
        transformer: config,
        trained_on: Default::default(),
    };
    let generation = Default::default();
    Ok((EarthMapper { config, tokenizer_config, generation, tokenizer, transformer }, REPORT.into()))
}
