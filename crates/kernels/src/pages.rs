//! Memory in pages of its own, for what is large and short-lived.

use memmap2::MmapMut;

/// Room for 32-bit floats that starts at zero. The system lends a page when it is first touched, so room that nobody
/// uses costs nothing, and takes all of them back at the drop: an allocator may keep what was given back to it for as
/// long as the next part of the work, which then needs its own memory beside it.
#[derive(Debug, Default)]
pub(crate) struct Pages {
    /// `None` when empty: no mapping is.
    mapped: Option<MmapMut>,
    len: usize,
}

impl Pages {
    /// Room for `len` values.
    ///
    /// # Panics
    /// When the system has no more memory to lend.
    pub(crate) fn new(len: usize) -> Self {
        let map = |bytes| {
            MmapMut::map_anon(bytes).unwrap_or_else(|error| panic!("{bytes} bytes of memory: {error}"))
        };
        Self { mapped: (len > 0).then(|| map(len * size_of::<f32>())), len }
    }

    pub(crate) fn values_mut(&mut self) -> &mut [f32] {
        match &mut self.mapped {
            // A mapping starts at a page, which is aligned for every number; it may be longer than what was asked for.
            Some(mapped) => &mut bytemuck::cast_slice_mut(&mut mapped[..self.len * size_of::<f32>()])[..],
            None => &mut [],
        }
    }

    pub(crate) fn values(&self) -> &[f32] {
        match &self.mapped {
            Some(mapped) => bytemuck::cast_slice(&mapped[..self.len * size_of::<f32>()]),
            None => &[],
        }
    }
}

impl Clone for Pages {
    fn clone(&self) -> Self {
        let mut copy = Self::new(self.len);
        copy.values_mut().copy_from_slice(self.values());
        copy
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_start_at_zero_and_are_copied() {
        let mut pages = Pages::new(1025);
        assert_eq!(pages.values(), vec![0.0; 1025]);
        pages.values_mut()[1024] = 3.5;
        let copy = pages.clone();
        pages.values_mut()[1024] = 1.0;
        assert_eq!((copy.values()[1024], copy.values().len()), (3.5, 1025));
        assert!(Pages::new(0).values().is_empty() && Pages::default().clone().values_mut().is_empty());
    }
}
