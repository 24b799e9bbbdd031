//! The log of dirty pages that a front end shares with the daemon while a guest is being migrated.

use crate::error::Result;
use crate::memory::{Memory, PAGE, Region};

/// A bitmap, one bit a guest page, that the daemon sets bits in.
pub struct DirtyLog {
    bits: Memory,
    bytes: usize,
}

impl DirtyLog {
    /// A clean log of the guest addresses below `end`.
    pub fn new(end: u64) -> Result<Self> {
        let bytes = end.div_ceil(PAGE).div_ceil(8);
        let bits = Memory::new(&[(0, bytes.next_multiple_of(PAGE))])?;
        Ok(Self { bits, bytes: bytes as usize })
    }

    /// The region that is sent to the daemon.
    pub fn region(&self) -> Result<&Region> {
        self.bits.region(0)
    }

    /// Whether the page at a guest address was written.
    pub fn is_dirty(&self, guest: u64) -> Result<bool> {
        let page = guest / PAGE;
        let [byte] = self.bits.get::<[u8; 1]>(page / 8)?;
        Ok(byte & (1 << (page % 8)) != 0)
    }

    /// How many pages were written.
    pub fn count(&self) -> Result<u32> {
        let mut bytes = vec![0; self.bytes];
        self.bits.read(0, &mut bytes)?;
        Ok(bytes.iter().map(|byte| byte.count_ones()).sum())
    }

    /// Forgets what was written.
    pub fn clear(&self) -> Result<()> {
        self.bits.fill(0, self.bytes, 0)
    }
}
