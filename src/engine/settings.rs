//! How an engine is built: what the flags of the command line come to.

use std::collections::BTreeSet;
use std::fmt;
use std::fs::File;
use std::io;
use std::num::NonZeroU16;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sys::arena::PAGE_BYTES;
use sys::backend::Backend;
use sys::bay::{Bays, Wanted};
use sys::wake::Waker;

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
    /// Whether the sender has each block proved.
    pub checksum: Checksum,
    /// By which lane blocks may go, on this side.
    pub route: RouteChoice,
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

/// What proves a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checksum {
    /// A CRC32 of its own.
    Crc32,
    /// Nothing but what its stream has inside: `zfs receive` checks that.
    None,
}

/// How blocks go through one side: the block lane or the splice lane (`--lane`; a number of a
/// connection is a lane too, hence the name). The wire knows nothing of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Route {
    /// Through slots of our own memory, where their bytes can be packed and proved.
    #[default]
    Block,
    /// Through pipes of our own, where their pages stay in the kernel.
    Splice,
}

/// Which of them is wished.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouteChoice {
    /// Splice where nobody has to look at the bytes and the machine grants the pipes.
    Auto,
    /// Only this one.
    Only(Route),
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

impl Route {
    /// The one that goes by bays, where there are some.
    pub(super) fn of(bays: Option<&Bays>) -> Route {
        if bays.is_some() { Route::Splice } else { Route::Block }
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Route::Block => "block",
            Route::Splice => "splice",
        })
    }
}

/// Slots that one block occupies: it is packed from one into another.
pub(super) fn slots_per_block(codec: Codec) -> u32 {
    match codec {
        Codec::Raw | Codec::Bare => 1,
        Codec::Zstd => 2,
    }
}

/// How breakpoint files in a folder are moved: on ZFS by plain calls, for a write of a registered
/// buffer may spin for ever there (openzfs#16133).
pub(crate) fn file_backend(backend: Backend, folder: &Path) -> io::Result<Backend> {
    let on_zfs = sys::direct::on_zfs(File::open(folder)?)?;
    Ok(if on_zfs { Backend::Threads } else { backend })
}

impl Settings {
    /// What the sender's peer must be able to take.
    pub fn codec(&self) -> Codec {
        match (self.compression, self.checksum) {
            (Compression::Zstd { .. } | Compression::Auto, _) => Codec::Zstd,
            (Compression::None, Checksum::Crc32) => Codec::Raw,
            (Compression::None, Checksum::None) => Codec::Bare,
        }
    }

    /// Those of one of several engines that share what there is to one: the cache in parts, and the
    /// workers on cores of their own as far as there are enough.
    #[must_use]
    pub fn one_of(&self, sharers: NonZeroU16, number: u16) -> Settings {
        let share = usize::from(sharers.get());
        let workers = (self.workers / share).max(1);
        let mut cores = self.cores.clone();
        if !cores.is_empty() {
            let first = usize::from(number) * workers % cores.len();
            cores.rotate_left(first);
        }
        let cache = Bytes(self.cache.0 / u64::from(sharers.get()));
        Settings { cache, workers, cores, ..self.clone() }
    }

    /// What a receiver can take: nothing that could change unseen on its way through files.
    pub fn codecs(&self) -> BTreeSet<Codec> {
        let bare = self.spool.is_none().then_some(Codec::Bare);
        [Codec::Raw, Codec::Zstd].into_iter().chain(bare).collect()
    }

    /// Bays in place of so many slots, where blocks of this codec go by the splice lane; so many
    /// are sent at the same time. `None`: they go by the block lane, for that is wished, or they
    /// have to be looked at, or the machine grants too few pipes for `connections` connections.
    ///
    /// Fails only where the splice lane is wished and cannot be had.
    pub(super) fn bays(
        &self,
        codec: Codec,
        slots: u32,
        connections: u32,
        sent: u32,
        taker: &Arc<Waker>,
    ) -> io::Result<Option<Bays>> {
        let looked_at = codec != Codec::Bare || self.spool.is_some();
        if looked_at || self.route == RouteChoice::Only(Route::Block) {
            return Ok(None);
        }
        let bytes = self.block_bytes.as_usize();
        let needed = connections.max(1) * 2;
        let why_not = match Bays::new(Wanted { count: slots, bytes, ways: sent }, taker) {
            Ok(bays) if bays.count() >= needed => return Ok(Some(bays)),
            Ok(bays) => format!("and this machine grants {}", bays.count()),
            Err(error) => error.to_string(),
        };
        let text = format!(
            "the splice lane needs {needed} pipes for blocks of {}, {why_not} (see \
             fs.pipe-max-size, fs.pipe-user-pages-soft and RLIMIT_NOFILE)",
            self.block_bytes
        );
        if self.route == RouteChoice::Only(Route::Splice) {
            return Err(io::Error::other(text));
        }
        tracing::warn!("{text}; blocks go by the block lane");
        Ok(None)
    }

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
    fn those_that_share_have_cores_of_their_own_and_no_more_together_than_one() {
        let sharers = NonZeroU16::new(3).unwrap();
        let one = |cores: &[usize], workers| Settings {
            cache: Bytes(96 << 20),
            workers,
            cores: cores.to_vec(),
            ..settings()
        };
        let cores = |settings: &Settings, number| settings.one_of(sharers, number).cores;
        let six = one(&[0, 1, 2, 3, 4, 5], 6);
        assert_eq!([cores(&six, 0)[..2].to_vec(), cores(&six, 2)[..2].to_vec()], [[0, 1], [4, 5]]);
        let shared = six.one_of(sharers, 1);
        assert_eq!((shared.cache, shared.workers), (Bytes(32 << 20), 2));
        let two = one(&[0, 1], 2);
        assert_eq!((cores(&two, 2)[0], two.one_of(sharers, 2).workers), (0, 1));
        assert!(cores(&one(&[], 2), 1).is_empty());
    }

    fn settings() -> Settings {
        Settings {
            backend: Backend::Threads,
            cache: Bytes(8 << 20),
            block_bytes: Bytes::MIB,
            workers: 1,
            cores: Vec::new(),
            compression: Compression::None,
            checksum: Checksum::Crc32,
            route: RouteChoice::Auto,
            flush_after: Duration::from_millis(100),
            zero_copy: ZeroCopy::Off,
            spool: None,
        }
    }

    #[test]
    fn a_cache_too_small_for_its_connections_is_refused() {
        let settings = settings();
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
