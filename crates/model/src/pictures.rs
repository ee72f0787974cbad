//! Pictures ↔ tensors in [−1, 1].

use burn::tensor::{Device, Tensor, TensorData};
use earthmapper_geo::picture::Picture;

/// Pictures of one size → `[batch, 3, height, width]` in [−1, 1].
///
/// # Panics
/// When there is no picture or the sizes differ.
pub fn to_tensor(pictures: &[Picture], device: &Device) -> Tensor<4> {
    let first = pictures.first().expect("at least one picture");
    let (width, height) = (first.width() as usize, first.height() as usize);
    let mut values = Vec::with_capacity(pictures.len() * 3 * width * height);
    for picture in pictures {
        assert_eq!((picture.width() as usize, picture.height() as usize), (width, height), "sizes differ");
        for channel in 0..3 {
            let samples = picture.rgb().iter().skip(channel).step_by(3);
            values.extend(samples.map(|&sample| f32::from(sample) / 127.5 - 1.0));
        }
    }
    Tensor::from_data(TensorData::new(values, [pictures.len(), 3, height, width]), device)
}

/// `[batch, 3, height, width]` in [−1, 1] → pictures; values outside are clamped.
pub fn from_tensor(tensor: Tensor<4>) -> Vec<Picture> {
    let [_, _, height, width] = tensor.dims();
    let values: Vec<f32> = tensor.try_into_vec_as::<f32>().expect("32-bit floats");
    let plane = width * height;
    values
        .chunks(3 * plane)
        .map(|channels| {
            let byte = |value: f32| ((value + 1.0) * 127.5).round().clamp(0.0, 255.0) as u8;
            let pixels =
                (0..plane).flat_map(|i| (0..3).map(move |c| byte(channels[c * plane + i]))).collect();
            Picture::new(width as u32, height as u32, pixels).expect("three bytes a pixel")
        })
        .collect()
}
