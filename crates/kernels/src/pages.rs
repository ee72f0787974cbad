//! Memory in pages of its own, for what is large and short-lived.

use memmap2::MmapMut;

/// Values below which memory is the allocator's: it gives small pieces again and again, and a system has only so many mappings.
const SMALL: usize = 1 << 18;

/// Room for 32-bit floats that starts at zero. Where it is large, the system lends a page when it is first touched, so that room
/// nobody uses costs nothing, and takes all of them back at the drop: an allocator may keep what was given back to it for as
/// long as the next part of the work, which then needs its own memory beside it.
#[derive(Debug)]
pub(crate) enum Pages {
    Small(Vec<f32>),
    /// A mapping starts at a page, which is aligned for every number.
    Mapped(MmapMut),
}

impl Pages {
    /// Room for `len` values.
    ///
    /// # Panics
    /// When the system has no more memory to lend.
    pub(crate) fn new(len: usize) -> Self {
        if len < SMALL {
            return Self::Small(vec![0.0; len]);
        }
        let bytes = len * size_of::<f32>();
        Self::Mapped(
            MmapMut::map_anon(bytes).unwrap_or_else(|error| panic!("{bytes} bytes of memory: {error}")),
        )
    }

    pub(crate) fn values_mut(&mut self) -> &mut [f32] {
        match self {
            Self::Small(values) => values,
            Self::Mapped(bytes) => bytemuck::cast_slice_mut(&mut bytes[..]),
        }
    }

    pub(crate) fn values(&self) -> &[f32] {
        match self {
            Self::Small(values) => values,
            Self::Mapped(bytes) => bytemuck::cast_slice(&bytes[..]),
        }
    }
}

impl Default for Pages {
    fn default() -> Self {
        Self::Small(Vec::new())
    }
}

impl Clone for Pages {
    fn clone(&self) -> Self {
        let mut copy = Self::new(self.values().len());
        copy.values_mut().copy_from_slice(self.values());
        copy
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_start_at_zero_and_are_copied() {
        for len in [1, 1025, SMALL, SMALL + 3] {
            let mut pages = Pages::new(len);
            assert_eq!(matches!(pages, Pages::Mapped(_)), len >= SMALL);
            assert_eq!(pages.values(), vec![0.0; len]);
            pages.values_mut()[len - 1] = 3.5;
            let copy = pages.clone();
            pages.values_mut()[len - 1] = 1.0;
            assert_eq!((copy.values()[len - 1], copy.values().len()), (3.5, len));
        }
        assert!(Pages::new(0).values().is_empty() && Pages::default().clone().values_mut().is_empty());
    }
}
