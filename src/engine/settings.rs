//! How an engine is built: what the flags of the command line come to.

use std::fs::File;
use std::io;
use std::path::Path;
use std::time::Duration;

use sys::arena::PAGE_BYTES;
use sys::backend::Backend;

use crate::error::{Class, Failure, Side};
use crate::protocol::frame::Codec;
pub use crate::spool::segments::{Spool, When};
use crate::units::Bytes;

/// The same for both directions; each side has its own, only `codec` and `block_bytes` are agreed.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How operations reach the kernel.
    pub backend: Backend,
    /// The memory that blocks travel in: the promise is this and 32 MiB, whatever the stream's
    /// length.
    pub cache: Bytes,
    /// The largest block; a multiple of the page size.
    pub block_bytes: Bytes,
    /// Threads that compress, decompress and check; at least one.
    pub workers: usize,
    /// The cores that workers are pinned to, one after the other; empty for none.
    pub cores: Vec<usize>,
    /// What the sender does to blocks.
    pub compression: Compression,
    /// How long a block may wait for more bytes of a slow source.
    pub flush_after: Duration,
    /// When the sender asks the kernel to send from the slots' own pages.
    pub zero_copy: ZeroCopy,
    /// Where the sender puts blocks that the cache has no room for; `None`: nowhere, and the source
    /// waits.
    pub spool: Option<Spool>,
}

/// What happens to the payload of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Nothing: for streams that are compressed already, as `zfs send -c` makes them.
    None,
    /// zstd at this level; a block that does not shrink travels raw.
    Zstd {
        /// From -7 (fastest) to 22 (smallest).
        level: i32,
    },
    /// zstd at the level that costs no speed at the moment, or nothing.
    Auto,
}

/// Whether sends go out without a copy into the kernel (`IORING_OP_SEND_ZC`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ZeroCopy {
    /// Until the kernel says for the first time that it copied all the same.
    Auto,
    /// Always.
    On,
    /// Never.
    Off,
}

impl Compression {
    /// What the peer must be able to unpack.
    pub fn codec(self) -> Codec {
        match self {
            Compression::None => Codec::Raw,
            Compression::Zstd { .. } | Compression::Auto => Codec::Zstd,
        }
    }
}

/// Slots that one block occupies: it is packed from one into another.
pub(super) fn slots_per_block(codec: Codec) -> u32 {
    match codec {
        Codec::Raw => 1,
        Codec::Zstd => 2,
    }
}

/// How breakpoint files in a folder are moved: on ZFS by plain calls, for a write of a registered
/// buffer may spin for ever there (openzfs#16133).
pub(super) fn file_backend(backend: Backend, folder: &Path) -> io::Result<Backend> {
    let on_zfs = sys::direct::on_zfs(File::open(folder)?)?;
    Ok(if on_zfs { Backend::Threads } else { backend })
}

impl Settings {
    /// How many slots the cache makes, or why it makes too few for `connections` connections. At
    /// the receiver each waits with the slots of one block, and there must be room for another; at
    /// the sender a block keeps its slot until the receiver has taken it, so each needs one on its
    /// way and one in hand. `here` is the side whose cache it is.
    pub fn slots(&self, connections: usize, codec: Codec, here: Side) -> Result<u32, Failure> {
        let slot_bytes = self.block_bytes.as_usize().saturating_add(PAGE_BYTES);
        let slots = self.cache.as_usize() / slot_bytes;
        let needed = connections.max(1) * 2 * slots_per_block(codec) as usize;
        if slots < needed {
            let least = (needed * slot_bytes).div_ceil(Bytes::MIB.as_usize());
            return Err(Failure::new(
                here,
                Class::Usage,
                format!(
                    "a cache of {} holds {slots} blocks of {}, but {connections} connections \
                     need {needed}",
                    self.cache, self.block_bytes
                ),
            )
            .with_remedy(format!("use --cache {least}MiB or more, or a smaller --block-size")));
        }
        Ok(u32::try_from(slots).unwrap_or(u32::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cache_too_small_for_its_connections_is_refused() {
        let settings = Settings {
            backend: Backend::Threads,
            cache: Bytes(8 << 20),
            block_bytes: Bytes::MIB,
            workers: 1,
            cores: Vec::new(),
            compression: Compression::None,
            flush_after: Duration::from_millis(100),
            zero_copy: ZeroCopy::Off,
            spool: None,
        };
        assert_eq!(settings.slots(3, Codec::Raw, Side::Source).unwrap(), 7);
        let refused = settings.slots(4, Codec::Raw, Side::Source).unwrap_err();
        assert_eq!(refused.class, Class::Usage);
        // 8 slots of 1 MiB and a page: what is told must be enough.
        assert!(refused.remedy.unwrap().starts_with("use --cache 9MiB or more"));
        let enough = Settings { cache: Bytes(9 << 20), ..settings.clone() };
        assert_eq!(enough.slots(4, Codec::Raw, Side::Source).unwrap(), 8);
        assert!(settings.slots(2, Codec::Zstd, Side::Source).is_err());
    }
}
