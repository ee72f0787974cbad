//! AdamW with decay on matrices only, clipping by the global norm, warm-up and cosine, and a moving average of the
//! weights.

use std::path::Path;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param, ParamGroup};
use burn::optim::{AdamWConfig, GradientsParams, ModuleOptimizer};
use burn::store::ModuleRecord;
use burn::tensor::{Gradients, Tensor};
use serde::{Deserialize, Serialize};

/// How weights are updated.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OptimiserConfig {
    /// Highest learning rate.
    pub learning_rate: f64,
    /// Learning rate at the end ÷ highest.
    pub final_rate: f64,
    /// Steps until the highest rate is reached.
    pub warm_up: u64,
    /// Decoupled weight decay, on matrices and convolutions only.
    pub weight_decay: f32,
    /// Decay of the first moment.
    pub beta1: f32,
    /// Decay of the second moment.
    pub beta2: f32,
    /// Gradients are scaled down to this global norm; 0 leaves them alone.
    pub clip_norm: f32,
    /// Decay of the moving average of the weights; 0 keeps none.
    pub average_decay: f32,
}

impl Default for OptimiserConfig {
    fn default() -> Self {
        Self {
            learning_rate: 1e-3,
            final_rate: 0.05,
            warm_up: 100,
            weight_decay: 0.05,
            beta1: 0.9,
            beta2: 0.95,
            clip_norm: 1.0,
            average_decay: 0.995,
        }
    }
}

impl OptimiserConfig {
    /// Says what is wrong with the values, if anything.
    pub(crate) fn problem(&self) -> Option<String> {
        let amounts = [
            ("learning_rate", self.learning_rate),
            ("final_rate", self.final_rate),
            ("weight_decay", f64::from(self.weight_decay)),
            ("clip_norm", f64::from(self.clip_norm)),
        ];
        let decays = [("beta1", self.beta1), ("beta2", self.beta2), ("average_decay", self.average_decay)];
        // Written so that a value that is no number is wrong too.
        let amount = amounts.into_iter().find(|(_, value)| !(*value >= 0.0 && value.is_finite()));
        let decay = decays.into_iter().find(|(_, value)| !(0.0..1.0).contains(value));
        amount.map(|(key, value)| format!("{key} is {value}; give a number from 0")).or_else(|| {
            decay.map(|(key, value)| format!("{key} is {value}; give a number from 0 to below 1"))
        })
    }

    /// Learning rate of step `step` of `steps`: linear warm-up, then a half cosine.
    pub fn rate(&self, step: u64, steps: u64) -> f64 {
        if step < self.warm_up {
            return self.learning_rate * (step + 1) as f64 / self.warm_up as f64;
        }
        let done = (step - self.warm_up) as f64 / (steps.saturating_sub(self.warm_up)).max(1) as f64;
        let cosine = 0.5 * (1.0 + (done.min(1.0) * std::f64::consts::PI).cos());
        self.learning_rate * (self.final_rate + (1.0 - self.final_rate) * cosine)
    }
}

/// An optimiser for modules of type `M`.
pub struct Optimiser {
    config: OptimiserConfig,
    inner: ModuleOptimizer,
}

impl Optimiser {
    /// An optimiser without any history.
    pub fn new<M: Module>(config: &OptimiserConfig, module: &M) -> Self {
        let adam = |decay: f32| {
            AdamWConfig::new()
                .with_beta_1(config.beta1)
                .with_beta_2(config.beta2)
                .with_epsilon(1e-8)
                .with_weight_decay(decay)
                .build()
        };
        let matrices = ParamGroup::from_paths(matrix_paths(module));
        let inner = ModuleOptimizer::from(adam(0.0)).with_group(matrices, adam(config.weight_decay), None);
        Self { config: config.clone(), inner }
    }

    /// One step with gradients that were summed over `parts` equal micro-batches; gives back the module and the global
    /// norm of the gradients before clipping. When the norm is not finite nothing changes: one such step would spoil
    /// every weight.
    pub fn step<M: Module>(
        &mut self,
        module: M,
        mut gradients: GradientsParams,
        parts: usize,
        rate: f64,
    ) -> (M, f64) {
        let mut norm = SquaredNorm { gradients: &gradients, sum: Vec::new() };
        module.visit(&mut norm);
        let sum = norm.sum.into_iter().reduce(|a, b| a + b);
        let norm = sum.map_or(0.0, |sum| f64::from(sum.into_scalar::<f32>())).sqrt() / parts as f64;
        if !norm.is_finite() {
            return (module, norm);
        }
        let clip = f64::from(self.config.clip_norm);
        let scale = if clip > 0.0 && norm > clip { clip / norm } else { 1.0 } / parts as f64;
        if scale != 1.0 {
            module.visit(&mut Scale { gradients: &mut gradients, scale });
        }
        (self.inner.step(rate, module, gradients), norm)
    }

    /// The configuration.
    pub fn config(&self) -> &OptimiserConfig {
        &self.config
    }

    /// Writes the history.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn save(&self, path: &Path) -> Result<(), String> {
        self.inner.save(path).map_err(|error| error.to_string())
    }

    /// Takes up a history.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn load(mut self, path: &Path) -> Result<Self, String> {
        self.inner = self.inner.load(path).map_err(|error| error.to_string())?;
        Ok(self)
    }
}

/// The gradients of a module's parameters.
pub fn gradients_of<M: Module>(gradients: Gradients, module: &M) -> GradientsParams {
    GradientsParams::from_grads(gradients, module)
}

/// Writes a module's weights with the identities that the optimiser's history refers to.
///
/// # Errors
/// When the file cannot be written.
pub fn save_module<M: Module>(module: &M, path: &Path) -> Result<(), String> {
    module.clone().into_record().save(path).map_err(|error| error.to_string())
}

/// Reads what [`save_module`] wrote.
///
/// # Errors
/// When the file cannot be read or does not fit.
pub fn load_module<M: Module>(module: M, path: &Path) -> Result<M, String> {
    let record = ModuleRecord::load(path).map_err(|error| error.to_string())?;
    module.try_load_record(record).map_err(|error| error.to_string())
}

struct SquaredNorm<'a> {
    gradients: &'a GradientsParams,
    sum: Vec<Tensor<1>>,
}

impl ModuleVisitor for SquaredNorm<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(gradient) = self.gradients.get::<D>(param.id) {
            let count = gradient.shape().num_elements();
            self.sum.push(steady_sum(gradient.square().reshape([count])));
        }
    }
}

/// The sum of all values, added up in an order that depends on their number alone. A plain `sum` on the CPU leaves the
/// order to the scheduling of threads when there are millions of values, and the norm scales every weight's step.
fn steady_sum(values: Tensor<1>) -> Tensor<1> {
    const ROW: usize = 4096;
    let [count] = values.dims();
    if count <= ROW {
        return values.sum();
    }
    let rows = count / ROW;
    let sums = values.clone().narrow(0, 0, rows * ROW).reshape([rows, ROW]).sum_dim(1).reshape([rows]);
    let sum = steady_sum(sums);
    match count - rows * ROW {
        0 => sum,
        rest => sum + values.narrow(0, rows * ROW, rest).sum(),
    }
}

struct Scale<'a> {
    gradients: &'a mut GradientsParams,
    scale: f64,
}

impl ModuleVisitor for Scale<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(gradient) = self.gradients.remove::<D>(param.id) {
            self.gradients.register(param.id, gradient.mul_scalar(self.scale));
        }
    }
}

/// Paths of the parameters with at least two dimensions longer than one: what weight decay acts on.
fn matrix_paths<M: Module>(module: &M) -> Vec<String> {
    struct Paths {
        path: Vec<String>,
        found: Vec<String>,
    }
    impl ModuleVisitor for Paths {
        fn enter_module(&mut self, name: &str, _container: &str) {
            self.path.push(name.into());
        }
        fn exit_module(&mut self, _name: &str, _container: &str) {
            self.path.pop();
        }
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let path = self.path.join(".");
            let is_matrix = param.dims().iter().filter(|size| **size > 1).count() >= 2;
            // Embeddings of positions and codes are tables of vectors, not matrices that mix.
            if is_matrix && path.ends_with("weight") {
                self.found.push(path);
            }
        }
    }
    let mut paths = Paths { path: Vec::new(), found: Vec::new() };
    module.visit(&mut paths);
    paths.found
}

/// A moving average of a module's weights.
pub struct Average<M> {
    decay: f32,
    module: M,
}

impl<M: Module> Average<M> {
    /// Starts from the module's present weights.
    pub fn new(decay: f32, module: &M) -> Self {
        Self { decay, module: module.valid() }
    }

    /// Moves a little toward the module's weights; less at the start, where the average would lag behind.
    pub fn update(&mut self, module: &M, step: u64) {
        let decay = self.decay.min((1.0 + step as f32) / (10.0 + step as f32));
        let mut collect = Collect { tensors: Vec::new() };
        module.visit(&mut collect);
        let mut blend = Blend { tensors: collect.tensors.into_iter(), decay };
        self.module = self.module.clone().map(&mut blend);
    }

    /// The averaged module.
    pub fn module(&self) -> &M {
        &self.module
    }

    /// Replaces the average, when a run is taken up again.
    pub fn set(&mut self, module: M) {
        self.module = module;
    }
}

struct Collect {
    tensors: Vec<Tensor<1>>,
}

impl ModuleVisitor for Collect {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let tensor = param.val().inner();
        let count = tensor.shape().num_elements();
        self.tensors.push(tensor.reshape([count]));
    }
}

struct Blend {
    tensors: std::vec::IntoIter<Tensor<1>>,
    decay: f32,
}

impl ModuleMapper for Blend {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let new = self.tensors.next().expect("the average has the module's parameters");
        param.map(|old| {
            let new = new.reshape(old.dims());
            old.mul_scalar(self.decay) + new.mul_scalar(1.0 - self.decay)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::nn::LinearConfig;
    use burn::tensor::Device;

    #[test]
    fn the_rate_warms_up_and_comes_down() {
        let config =
            OptimiserConfig { learning_rate: 2.0, warm_up: 4, final_rate: 0.1, ..Default::default() };
        assert_eq!(config.rate(0, 100), 0.5);
        assert_eq!(config.rate(3, 100), 2.0);
        assert!((config.rate(100, 100) - 0.2).abs() < 1e-9);
        assert!((4..100).all(|step| config.rate(step, 100) >= config.rate(step + 1, 100)));
    }

    #[test]
    fn the_norm_of_millions_of_values_is_the_same_every_time() {
        let device = Device::flex();
        let values: Vec<f32> =
            (0..5_000_123u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 8) as f32).collect();
        let exact: f64 = values.iter().map(|value| f64::from(*value)).sum();
        let values = Tensor::<1>::from_data(values.as_slice(), &device);
        let sums: Vec<f32> = (0..8).map(|_| steady_sum(values.clone()).into_scalar::<f32>()).collect();
        assert!(sums.iter().all(|sum| *sum == sums[0]), "{sums:?}");
        assert!((f64::from(sums[0]) / exact - 1.0).abs() < 1e-6);
    }

    #[test]
    fn a_gradient_that_is_no_number_changes_nothing() {
        let device = Device::flex().autodiff();
        let linear = LinearConfig::new(3, 2).init(&device);
        let before = linear.weight.val().try_into_vec_as::<f32>().unwrap();
        let mut optimiser = Optimiser::new(&OptimiserConfig::default(), &linear);
        let loss = linear.weight.val().sum().mul_scalar(f32::NAN);
        let gradients = gradients_of(loss.backward(), &linear);
        let (linear, norm) = optimiser.step(linear, gradients, 1, 0.1);
        assert!(norm.is_nan());
        assert_eq!(linear.weight.val().try_into_vec_as::<f32>().unwrap(), before);
    }

    #[test]
    fn clipping_bounds_the_step_and_decay_leaves_biases_alone() {
        let device = Device::flex().autodiff();
        let linear = LinearConfig::new(3, 2).init(&device);
        let bias = linear.bias.as_ref().unwrap().val().try_into_vec_as::<f32>().unwrap();
        let config = OptimiserConfig { weight_decay: 0.5, clip_norm: 0.1, ..Default::default() };
        let mut optimiser = Optimiser::new(&config, &linear);
        let before = linear.weight.val().abs().sum().into_scalar::<f32>();
        // A loss without gradient for anything but the weight: decay alone moves it.
        let loss = linear.weight.val().sum().mul_scalar(0.0);
        let gradients = gradients_of(loss.backward(), &linear);
        let (linear, norm) = optimiser.step(linear, gradients, 1, 0.1);
        assert_eq!(norm, 0.0);
        let after = linear.weight.val().abs().sum().into_scalar::<f32>();
        assert!((after / before - 0.95).abs() < 1e-4, "decay {}", after / before);
        let same = linear.bias.as_ref().unwrap().val().try_into_vec_as::<f32>().unwrap();
        assert_eq!(bias, same);
    }
}
