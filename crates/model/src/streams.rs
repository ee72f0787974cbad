//! The conditional and the unconditional stream of a generation, run by Burn's modules or by packed layers.

use burn::tensor::Tensor;
use earthmapper_geo::Place;

use crate::model::EarthMapper;
use crate::packed::values;
use crate::transformer::{JointTransformer, KvCache, PackedTransformer, Sequence, SequenceInput};

/// Logits of both streams, `[rows, vocabulary]` each; the second only where there is guidance.
pub(crate) type Logits = (Vec<f32>, Option<Vec<f32>>);

/// What the streams of a generation are.
pub(crate) struct Plan {
    /// Modalities in the conditional stream.
    pub visible: Vec<usize>,
    /// Modalities that are generated: the unconditional stream holds nothing else.
    pub targets: Vec<usize>,
    /// Wholly known pictures that are not in the sequence, with their features `[batch, latent, side, side]`.
    pub guides: Vec<(usize, Tensor<4>)>,
    /// One per picture.
    pub places: Vec<Option<Place>>,
    /// Whether there is an unconditional stream.
    pub guided: bool,
}

/// Both streams, scale after scale.
pub(crate) struct Streams<'a> {
    plan: Plan,
    /// The next scale.
    scale: usize,
    kind: Kind<'a>,
}

enum Kind<'a> {
    Modules(Box<Modules<'a>>),
    Packed(Packed<'a>),
}

/// Burn's modules; the streams one after the other.
struct Modules<'a> {
    transformer: &'a JointTransformer,
    guide: Option<Vec<Tensor<3>>>,
    here: Tensor<2>,
    nowhere: Tensor<2>,
    cache: KvCache,
    free_cache: KvCache,
    /// Per target, states ready for the head `[rows, width]` of both streams.
    normed: Vec<(Tensor<2>, Option<Tensor<2>>)>,
}

/// Packed layers; the streams together.
struct Packed<'a> {
    transformer: &'a PackedTransformer,
    /// Per scale `[batch, tokens, width]`.
    guide: Option<Vec<Vec<f32>>>,
    /// The pictures of the conditional stream, then those of the unconditional one.
    sequences: Vec<Sequence>,
    /// Per target, states ready for the head of all sequences.
    normed: Vec<Vec<f32>>,
}

impl<'a> Streams<'a> {
    /// Streams at their start.
    pub fn new(model: &'a EarthMapper, plan: Plan) -> Self {
        let transformer = &model.transformer;
        let here = transformer.geo_embedding.forward(&plan.places);
        let nowhere = transformer.geo_embedding.forward(&vec![None; plan.places.len()]);
        let kind = match model.packed() {
            Some(packed) => {
                let transformer = &packed.transformer;
                let mut conditions = values(here);
                let mut visible = vec![&plan.visible[..]; plan.places.len()];
                if plan.guided {
                    conditions.extend(values(nowhere));
                    visible.extend(vec![&plan.targets[..]; plan.places.len()]);
                }
                let guide = transformer.guide(&plan.guides);
                // The keys and values take the place of the encoder's large maps.
                earthmapper_kernels::release_maps();
                let sequences = transformer.begin(&visible, &conditions);
                Kind::Packed(Packed { transformer, guide, sequences, normed: Vec::new() })
            }
            None => Kind::Modules(Box::new(Modules {
                transformer,
                guide: transformer.guide(&plan.guides),
                here,
                nowhere,
                cache: transformer.cache(),
                free_cache: transformer.cache(),
                normed: Vec::new(),
            })),
        };
        Self { plan, scale: 0, kind }
    }

    /// Modalities in the conditional stream.
    pub fn visible(&self) -> &[usize] {
        &self.plan.visible
    }

    /// Modalities that are generated.
    pub fn targets(&self) -> &[usize] {
        &self.plan.targets
    }

    /// Steps over the next scale; `inputs` holds, per visible modality, `[batch, tokens, latent]`, and nothing for the
    /// first scale.
    pub fn step(&mut self, inputs: Vec<Tensor<3>>) {
        match &mut self.kind {
            Kind::Modules(modules) => modules.step(&self.plan, self.scale, inputs),
            Kind::Packed(packed) => packed.step(&self.plan, self.scale, inputs),
        }
        self.scale += 1;
    }

    /// Logits of code `level` of each position of a target at the scale stepped over last. `chosen` is the sum of the
    /// codes already chosen, `[rows, latent]`.
    pub fn logits(&self, target: usize, chosen: &Tensor<2>, level: usize) -> Logits {
        let index = self.plan.targets.iter().position(|&m| m == target).expect("a target");
        match &self.kind {
            Kind::Modules(modules) => {
                let logits = |hidden: &Tensor<2>| {
                    values(modules.transformer.logits(hidden.clone(), Some(chosen.clone()), level))
                };
                let (normed, free) = &modules.normed[index];
                (logits(normed), free.as_ref().map(logits))
            }
            Kind::Packed(packed) => {
                let chosen = (level > 0).then(|| values(chosen.clone()));
                let chosen = chosen.map(|chosen| if self.plan.guided { chosen.repeat(2) } else { chosen });
                let mut logits = packed.transformer.logits(&packed.normed[index], chosen.as_deref(), level);
                let free = self.plan.guided.then(|| logits.split_off(logits.len() / 2));
                (logits, free)
            }
        }
    }
}

impl Plan {
    /// Where each target stands among the visible modalities.
    fn slots(&self) -> impl Iterator<Item = usize> {
        let slot =
            |target: &usize| self.visible.iter().position(|m| m == target).expect("targets are visible");
        self.targets.iter().map(slot)
    }
}

impl Modules<'_> {
    fn step(&mut self, plan: &Plan, k: usize, inputs: Vec<Tensor<3>>) {
        let transformer = self.transformer;
        let count = transformer.scales().tokens(k);
        let guide = self.guide.as_ref().map(|guide| &guide[k]);
        let hidden = transformer.step(&plan.visible, &inputs, guide, self.here.clone(), &mut self.cache);
        let free = plan.guided.then(|| {
            let inputs: Vec<_> = plan.slots().filter_map(|slot| inputs.get(slot).cloned()).collect();
            transformer.step(&plan.targets, &inputs, None, self.nowhere.clone(), &mut self.free_cache)
        });
        let normed = |hidden: &Tensor<3>, slot: usize, condition: &Tensor<2>| -> Tensor<2> {
            let part = hidden.clone().narrow(1, slot * count, count);
            let [batch, _, width] = part.dims();
            transformer.head_norm(part, condition.clone()).reshape([batch * count, width])
        };
        self.normed = plan
            .slots()
            .enumerate()
            .map(|(index, slot)| {
                let free = free.as_ref().map(|free| normed(free, index, &self.nowhere));
                (normed(&hidden, slot, &self.here), free)
            })
            .collect();
    }
}

impl Packed<'_> {
    fn step(&mut self, plan: &Plan, k: usize, inputs: Vec<Tensor<3>>) {
        let batch = plan.places.len();
        let inputs: Vec<Vec<f32>> = inputs.into_iter().map(values).collect();
        let guide = self.guide.as_ref().map(|guide| &guide[k]);
        let picture = |values: &'_ Vec<f32>, i: usize| -> std::ops::Range<usize> {
            let size = values.len() / batch;
            i * size..(i + 1) * size
        };
        let mut words: Vec<Vec<&[f32]>> =
            (0..batch).map(|i| inputs.iter().map(|input| &input[picture(input, i)]).collect()).collect();
        if plan.guided {
            let free = |i: usize| plan.slots().filter_map(|slot| words[i].get(slot).copied()).collect();
            words.extend((0..batch).map(free).collect::<Vec<_>>());
        }
        let sequence_inputs: Vec<SequenceInput> = words
            .iter()
            .enumerate()
            .map(|(i, words)| SequenceInput {
                words,
                guide: guide.filter(|_| i < batch).map(|guide| &guide[picture(guide, i)]),
            })
            .collect();
        let hidden = self.transformer.step(k, &mut self.sequences, &sequence_inputs);
        let normed = |&target: &usize| self.transformer.head_norm(k, &self.sequences, &hidden, target);
        self.normed = plan.targets.iter().map(normed).collect();
    }
}
