//! Choosing the device a model runs on.

use burn::tensor::Device;

/// Why a device cannot be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeviceError {
    /// The name is none of those known.
    #[error("device {0:?} is unknown; use cpu, cuda, cuda:N, vulkan, metal or auto")]
    Unknown(String),
    /// The program was built without this back end.
    #[error(
        "this program was built without {0}; rebuild it with `cargo build --release --features {0}`, or use --device cpu"
    )]
    NotBuilt(&'static str),
}

/// Finds a device by name: `cpu`, `cuda`, `cuda:N`, `vulkan`, `metal` or `auto` (the first GPU back end built in,
/// else the CPU).
///
/// # Errors
/// When the name is unknown or the back end is not built in.
pub fn device(name: &str) -> Result<Device, DeviceError> {
    let (kind, index) = match name.split_once(':') {
        Some((kind, index)) => (kind, index.parse::<usize>().map_err(|_| DeviceError::Unknown(name.into()))?),
        None => (name, 0),
    };
    match kind {
        "cpu" => Ok(Device::flex()),
        "cuda" => cuda(index),
        "vulkan" => vulkan(),
        "metal" => metal(),
        "auto" => Ok(cuda(0).or_else(|_| metal()).or_else(|_| vulkan()).unwrap_or_else(|_| Device::flex())),
        _ => Err(DeviceError::Unknown(name.into())),
    }
}

#[cfg(feature = "cuda")]
fn cuda(index: usize) -> Result<Device, DeviceError> {
    Ok(Device::cuda(index))
}

#[cfg(not(feature = "cuda"))]
fn cuda(_index: usize) -> Result<Device, DeviceError> {
    Err(DeviceError::NotBuilt("cuda"))
}

#[cfg(feature = "vulkan")]
fn vulkan() -> Result<Device, DeviceError> {
    Ok(Device::vulkan(burn::tensor::DeviceKind::DefaultDevice))
}

#[cfg(not(feature = "vulkan"))]
fn vulkan() -> Result<Device, DeviceError> {
    Err(DeviceError::NotBuilt("vulkan"))
}

#[cfg(feature = "metal")]
fn metal() -> Result<Device, DeviceError> {
    Ok(Device::metal(burn::tensor::DeviceKind::DefaultDevice))
}

#[cfg(not(feature = "metal"))]
fn metal() -> Result<Device, DeviceError> {
    Err(DeviceError::NotBuilt("metal"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_device_lists_the_known_ones() {
        assert!(device("tpu").unwrap_err().to_string().contains("vulkan"));
        assert!(device("cuda:x").is_err());
        assert!(device("cpu").is_ok() && device("auto").is_ok());
    }
}
