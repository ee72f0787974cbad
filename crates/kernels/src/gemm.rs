//! The one place where matrix products are asked for.

use rten_gemm::{BiasVector, GemmExecutor, GemmInputA, GemmInputB, GemmOptions, PackedBMatrix};
use rten_tensor::NdTensorView;

thread_local! {
    // An executor cannot be shared between threads; making one asks the processor what it can do.
    static FLOATS: GemmExecutor<f32> = GemmExecutor::new();
    static BYTES: GemmExecutor<u8, i8, i32> = GemmExecutor::new();
}

/// Rows of a matrix that need not lie close to each other.
#[derive(Clone, Copy)]
pub(crate) struct Rows<'a, T> {
    /// The values; the last row may end early.
    pub data: &'a [T],
    /// Number of rows.
    pub count: usize,
    /// Values in a row.
    pub width: usize,
    /// Values from the start of a row to the start of the next one.
    pub stride: usize,
}

impl<'a, T> Rows<'a, T> {
    /// Rows close to each other.
    pub fn dense(data: &'a [T], width: usize) -> Self {
        Self { data, count: data.len() / width, width, stride: width }
    }

    fn view(&self, transposed: bool) -> NdTensorView<'a, T, 2> {
        let (shape, strides) = match transposed {
            false => ([self.count, self.width], [self.stride, 1]),
            true => ([self.width, self.count], [1, self.stride]),
        };
        NdTensorView::from_slice_with_strides(shape, self.data, strides).expect("rows inside their slice")
    }
}

/// A right-hand side that was packed before.
pub(crate) type Packed<T> = PackedBMatrix<T>;

/// Packs `[inputs, outputs]`.
pub(crate) fn pack(weight: Rows<f32>) -> Packed<f32> {
    FLOATS.with(|gemm| gemm.prepack_b(weight.view(false)))
}

/// Packs the transpose of `[outputs, inputs]`.
pub(crate) fn pack_transposed(rows: Rows<f32>) -> Packed<f32> {
    FLOATS.with(|gemm| gemm.prepack_b(rows.view(true)))
}

/// Packs 8-bit weights `[inputs, outputs]`.
pub(crate) fn pack_bytes(weight: Rows<i8>) -> Packed<i8> {
    BYTES.with(|gemm| gemm.prepack_b(weight.view(false)))
}

/// The largest magnitude that 8-bit weights may have. Without a dot product instruction, two products are first added
/// in 16 bits, which must not overflow: 2 · 255 · 64 < 2¹⁵.
pub(crate) fn largest_byte() -> f32 {
    BYTES.with(|gemm| if gemm.may_saturate() { 64.0 } else { 127.0 })
}

/// out = a·b (+ bias), or out += a·b with `add`.
pub(crate) fn product(out: &mut [f32], a: Rows<f32>, b: &Packed<f32>, bias: Option<&[f32]>, add: bool) {
    FLOATS.with(|gemm| {
        let beta = if add { 1.0 } else { 0.0 };
        let options = GemmOptions { beta, bias: bias.map(BiasVector::Row), ..Default::default() };
        gemm.gemm(out, GemmInputA::Unpacked(a.view(false)), GemmInputB::Packed(b), options)
            .expect("sizes that fit");
    });
}

/// out += aᵀ·b, where `a` has as many rows as `b`.
pub(crate) fn product_transposed(out: &mut [f32], a: Rows<f32>, b: &Packed<f32>) {
    FLOATS.with(|gemm| {
        let options = GemmOptions { beta: 1.0, ..Default::default() };
        gemm.gemm(out, GemmInputA::Unpacked(a.view(true)), GemmInputB::Packed(b), options)
            .expect("sizes that fit");
    });
}

/// out = a·b in whole numbers.
pub(crate) fn product_bytes(out: &mut [i32], a: Rows<u8>, b: &Packed<i8>) {
    BYTES.with(|gemm| {
        gemm.gemm(out, GemmInputA::Unpacked(a.view(false)), GemmInputB::Packed(b), GemmOptions::default())
            .expect("sizes that fit");
    });
}
