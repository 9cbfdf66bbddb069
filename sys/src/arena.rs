//! One page-aligned mapping, cut into slots of one size: the cache that all blocks travel in.
//!
//! Mapped once, registered with every ring, unmapped when the last loan and the last ring are
//! gone. It never hands out memory itself: only a [`crate::loan::Pool`] may, one slot to one
//! holder. A fork must not see it (`MADV_DONTFORK`): a child's copy-on-write would part a
//! vmspliced page from the slot it came from.

use std::io;
use std::num::NonZeroUsize;
use std::ptr::NonNull;
use std::sync::Arc;

use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mmap_anonymous, munmap};

/// The size of a page on every machine that zferry runs on; slots start at multiples of it.
pub const PAGE_BYTES: usize = 4096;

/// The size of a transparent huge page on x86-64 and on arm64 with 4 KiB pages.
const HUGE_PAGE_BYTES: usize = 2 << 20;

/// The largest buffer that io_uring registers (`io_sqe_buffer_register` in rsrc.c).
const REGISTERED_BYTES_MAX: usize = 1 << 30;

/// What is registered at once at least: to pin a few MiB takes the kernel about a millisecond.
const BUFFER_BYTES_MIN: usize = 8 << 20;

/// About how many buffers a large arena is registered as; the kernel takes 16384.
const BUFFERS: usize = 1024;

/// A mapping of `slots` times `slot_bytes` bytes.
#[derive(Debug)]
pub struct Arena {
    base: NonNull<u8>,
    slot_bytes: usize,
    slots: u32,
    huge_pages: bool,
}

// SAFETY: the arena owns its mapping until drop, and its bytes are reached only through a `Loan`,
// of which there is at most one per slot (kept by `Pool`).
unsafe impl Send for Arena {}
// SAFETY: as above; `&Arena` itself gives no access to the bytes.
unsafe impl Sync for Arena {}

impl Arena {
    /// Maps `slots` slots of `slot_bytes` bytes, rounded up to whole pages, with huge pages where
    /// the machine allows them (`/sys/kernel/mm/transparent_hugepage/enabled`).
    ///
    /// Fails with `InvalidInput` for a size of zero or over `isize::MAX`, with `OutOfMemory`
    /// where the kernel has no room.
    pub fn new(slot_bytes: usize, slots: u32) -> io::Result<Arc<Arena>> {
        let invalid = || io::Error::new(io::ErrorKind::InvalidInput, "an arena needs slots");
        let slot_bytes = slot_bytes.checked_next_multiple_of(PAGE_BYTES).ok_or_else(invalid)?;
        let bytes = slot_bytes
            .checked_mul(slots as usize)
            .and_then(|bytes| bytes.checked_next_multiple_of(HUGE_PAGE_BYTES))
            .filter(|&bytes| bytes < isize::MAX as usize - HUGE_PAGE_BYTES)
            .ok_or_else(invalid)?;
        let base = map_aligned(NonZeroUsize::new(bytes).ok_or_else(invalid)?)?;
        // From here on `Drop` unmaps.
        let mut arena = Arena { base, slot_bytes, slots, huge_pages: false };
        arena.advise(MmapAdvise::MADV_DONTFORK)?;
        arena.huge_pages = arena.advise(MmapAdvise::MADV_HUGEPAGE).is_ok();
        Ok(Arc::new(arena))
    }

    /// Bytes in one slot: a multiple of [`PAGE_BYTES`].
    pub fn slot_bytes(&self) -> usize {
        self.slot_bytes
    }

    /// How many slots there are.
    pub fn slots(&self) -> u32 {
        self.slots
    }

    /// Whether the kernel agreed to back the arena with huge pages.
    pub fn huge_pages(&self) -> bool {
        self.huge_pages
    }

    /// The whole mapping in bytes.
    pub fn bytes(&self) -> usize {
        (self.slot_bytes * self.slots as usize).next_multiple_of(HUGE_PAGE_BYTES)
    }

    /// The first byte of a slot, valid for `slot_bytes` as long as the arena lives.
    pub(crate) fn slot(&self, slot: u32) -> NonNull<u8> {
        assert!(slot < self.slots, "slot {slot} of {}", self.slots);
        // SAFETY: slot < slots, so the offset stays inside the one mapping.
        unsafe { self.base.add(slot as usize * self.slot_bytes) }
    }

    /// How many buffers the slots make when they are registered with a ring.
    pub(crate) fn buffers(&self) -> u32 {
        self.slots.div_ceil(self.slots_per_buffer())
    }

    /// One of the [`Arena::buffers`]: whole slots, within the kernel's limit.
    pub(crate) fn buffer(&self, index: u16) -> libc::iovec {
        let first = u32::from(index) * self.slots_per_buffer();
        let slots = self.slots_per_buffer().min(self.slots - first);
        libc::iovec {
            iov_base: self.slot(first).as_ptr().cast(),
            iov_len: slots as usize * self.slot_bytes,
        }
    }

    /// Which of the [`Arena::buffers`] a slot lies in.
    pub(crate) fn buffer_index(&self, slot: u32) -> u16 {
        u16::try_from(slot / self.slots_per_buffer()).unwrap_or(u16::MAX)
    }

    /// Several, so that a ring registers (and the kernel then populates) no more than is used, but
    /// not so few that the table of buffers grows with the cache.
    fn slots_per_buffer(&self) -> u32 {
        let least = (BUFFER_BYTES_MIN / self.slot_bytes).max(self.slots as usize / BUFFERS);
        let most = REGISTERED_BYTES_MAX / self.slot_bytes;
        u32::try_from(least.min(most)).unwrap_or(u32::MAX).max(1)
    }

    fn advise(&self, advice: MmapAdvise) -> nix::Result<()> {
        // SAFETY: the range is our own mapping; neither advice changes its contents.
        unsafe { madvise(self.base.cast(), self.bytes(), advice) }
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        // SAFETY: mapped in `new` with this length; every `Loan` and every ring holds an
        // `Arc<Arena>`, so none is left that could reach the bytes.
        let unmapped = unsafe { munmap(self.base.cast(), self.bytes()) };
        debug_assert_eq!(unmapped, Ok(()));
    }
}

/// Maps `bytes` (a multiple of a huge page) at an address that a huge page can stand at.
fn map_aligned(bytes: NonZeroUsize) -> io::Result<NonNull<u8>> {
    let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
    let over = bytes.saturating_add(HUGE_PAGE_BYTES);
    // SAFETY: a fresh private anonymous mapping aliases nothing.
    let mapped = unsafe { mmap_anonymous(None, over, protection, MapFlags::MAP_PRIVATE)? };
    let front = mapped.align_offset(HUGE_PAGE_BYTES);
    // SAFETY: `front` < HUGE_PAGE_BYTES, the room mapped beyond `bytes`.
    let base = unsafe { mapped.cast::<u8>().add(front) };
    let unmap = |start: NonNull<u8>, length: usize| match length {
        0 => Ok(()),
        // SAFETY: the range is the part of our fresh mapping that nothing uses.
        _ => unsafe { munmap(start.cast(), length) },
    };
    unmap(mapped.cast(), front)?;
    // SAFETY: one past the part in use, still inside the mapping of `over` bytes.
    unmap(unsafe { base.add(bytes.get()) }, HUGE_PAGE_BYTES - front)?;
    Ok(base)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_page_aligned_and_do_not_overlap() {
        let arena = Arena::new(5000, 3).unwrap();
        assert_eq!(arena.slot_bytes(), 8192);
        let starts: Vec<usize> = (0..3).map(|slot| arena.slot(slot).as_ptr().addr()).collect();
        assert!(starts.iter().all(|start| start % PAGE_BYTES == 0));
        assert_eq!(starts[1] - starts[0], 8192);
        assert_eq!(starts[0] % HUGE_PAGE_BYTES, 0);
    }

    #[test]
    fn no_registered_buffer_passes_the_limit_of_the_kernel() {
        for (slot_bytes, slots) in [(4096, 5), (4096, 1 << 21), (3 << 20, 1000), (17 << 20, 300)] {
            buffers_hold_their_slots(&Arena::new(slot_bytes, slots).unwrap());
        }
    }

    fn buffers_hold_their_slots(arena: &Arena) {
        let buffers: Vec<libc::iovec> =
            (0..arena.buffers()).map(|i| arena.buffer(u16::try_from(i).unwrap())).collect();
        assert!(buffers.len() <= 16384);
        let slots = arena.slots() as usize * arena.slot_bytes();
        assert!(buffers.iter().all(|buffer| buffer.iov_len <= REGISTERED_BYTES_MAX));
        assert_eq!(buffers.iter().map(|buffer| buffer.iov_len).sum::<usize>(), slots);
        for slot in 0..arena.slots() {
            let buffer = buffers[usize::from(arena.buffer_index(slot))];
            let start = arena.slot(slot).as_ptr().addr();
            let offset = start - buffer.iov_base.addr();
            assert!(offset + arena.slot_bytes() <= buffer.iov_len, "slot {slot} leaves its buffer");
        }
    }

    #[test]
    fn sizes_that_cannot_be_mapped_are_errors() {
        assert!(Arena::new(0, 4).is_err());
        assert!(Arena::new(4096, 0).is_err());
        assert!(Arena::new(usize::MAX, 2).is_err());
    }
}
