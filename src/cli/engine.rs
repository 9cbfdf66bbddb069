//! The flags that tune an engine; the same for every command that moves a stream.

mod values;

use std::time::Duration;

use clap::{Args, ValueEnum};
use sys::arena::PAGE_BYTES;
use sys::backend::{Backend, Choice};

use self::values::{Compress, Pin, Stripes};
use super::limit::{Bwlimit, Limit};
use super::spool::SpoolFlags;
use super::typed::typed;
use super::{machine, usage};
use crate::client::Connections;
use crate::engine::settings::{Checksum, Compression, Route, RouteChoice, Settings, ZeroCopy};
use crate::error::{Class, Failure, Side};
use crate::protocol::negotiate::{BLOCK_BYTES_MAX, BLOCK_BYTES_MIN};
use crate::units::Bytes;

/// How bytes are moved.
#[derive(Args, Debug)]
#[command(next_help_heading = "Tuning")]
pub(super) struct Flags {
    #[command(flatten)]
    machine: MachineFlags,
    /// Cores for the workers, one after the other: a list such as 0,2-5; `auto` for all that we may
    /// use; `off`, where the kernel moves them about, which costs their caches. Name some to keep
    /// them off the cores of the network card's interrupts, or on one NUMA node
    #[arg(long, value_name = "LIST", default_value = "auto")]
    pin: Pin,
    /// The way of blocks through this side. `block`: through our memory, where they are packed
    /// and proved. `splice`: as pages that stay in the kernel, at less than half the cost, and only
    /// where the sending side says `--checksum none`. `auto`: splice where that is possible
    #[arg(long, value_enum, value_name = "LANE", default_value = "auto")]
    lane: LaneFlag,
}

/// What an engine needs to know of the machine that it runs on; all that there is to say of one
/// that ssh starts on another host.
#[derive(Args, Debug)]
#[command(next_help_heading = "Tuning")]
pub(super) struct MachineFlags {
    /// How to reach the kernel: `auto`, io_uring where the machine allows it; `uring`, or fail; or
    /// `threads`, plain system calls, which cost more CPU time and a thread for each connection.
    /// For machines where io_uring misbehaves
    #[arg(long, value_enum, value_name = "BACKEND", default_value = "auto")]
    io: Io,
    /// Memory for blocks on their way, in bytes with a unit: the most that is used whatever the
    /// stream's length, at each end and for each session. Raise it at both ends where twice what is
    /// on the line at once (rate times round trip) is more, or to bridge longer stalls of the other
    /// side; with zstd a block takes two places. `zferry tune` says how much
    #[arg(long, value_name = "SIZE", default_value = "128MiB")]
    cache: Bytes,
    /// Threads that compress, decompress and check; without compression there are none. Each takes
    /// a core while it works. Fewer leave cores to `zfs` and to others [default: one per core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    workers: Option<u16>,
}

/// The same for the engine at the other end, where ssh starts that.
#[derive(Args, Debug, Default)]
#[command(next_help_heading = "Other hosts by ssh")]
pub(super) struct FarEngine {
    /// What --io is for the other host [default: auto]
    #[arg(long, value_enum, value_name = "BACKEND", hide_possible_values = true)]
    far_io: Option<Io>,
    /// What --workers is for the other host [default: one per core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    far_workers: Option<u16>,
}

/// How bytes are sent.
#[derive(Args, Debug)]
#[command(next_help_heading = "Tuning")]
pub(super) struct SendFlags {
    /// What to do to blocks: `none`; `zstd` with a level from 1 (fast) to 19 (small); or `auto`,
    /// which goes up to 9 where the network is what holds the stream up, and sends blocks as they
    /// are where it is not or where they would not shrink. Costs CPU time at both ends, and half of
    /// the cache. Use it where the network is slower than packing; streams of datasets with
    /// compression are sent compressed as they lie on disk, and gain little
    #[arg(long, value_name = "none|zstd[:LEVEL]|auto", default_value = "none")]
    compress: Compress,
    /// What proves each block at the receiving side: `crc32`, or `none` for streams that are
    /// checked there anyhow, as by `zfs receive`, and networks that are trusted. Without it nobody
    /// has to look at the bytes: see `--lane`
    #[arg(long, value_enum, value_name = "CHECKSUM", default_value = "crc32")]
    checksum: ChecksumFlag,
    /// TCP connections that the stream is spread over, 64 at most; several help where one is
    /// limited by its window, by loss or by its core. Each costs the place of two blocks in the
    /// cache, and takes a share of the line from others. `auto` begins with one and adds others, up
    /// to 16, as long as each makes the stream 5 percent faster
    #[arg(long, value_name = "N|auto", default_value = "1")]
    connections: Stripes,
    /// The unit of compression and checking, from 4KiB to 16MiB. Larger shrinks better and costs
    /// less per byte; smaller fits more blocks into the cache, and sends less again after a cut
    /// [default: 1MiB, and 256KiB with --checksum none]
    #[arg(long, value_name = "SIZE")]
    block_size: Option<Bytes>,
    /// Send a block that is not full when the source was silent for this many milliseconds. Less
    /// shows a slow source's bytes sooner, at the cost of more and smaller blocks
    #[arg(long, value_name = "MS", default_value_t = 100)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=60_000))]
    flush_after: u64,
    /// TCP congestion control of the data connections, by the kernel's name: `bbr` holds its rate
    /// on long lines that lose packets, at some CPU time and the cost of others on the line;
    /// `cubic` is cheaper on clean ones [default: the machine's; within one host, where pacing
    /// would halve the rate, cubic for bbr]
    #[arg(long, value_name = "NAME")]
    congestion: Option<String>,
    /// Send no more bytes than this each second over all connections together: 50MiB, say. Leaves
    /// room on the line for others. The kernel spreads it evenly, and counts what is sent again;
    /// the headers of the network come on top. `@FILE` reads it from a file, a rate or `none`, at
    /// the start and at each SIGHUP [default: no limit]
    #[arg(long, value_name = "RATE|@FILE")]
    bwlimit: Option<Bwlimit>,
    /// Have the network card read blocks from our memory, which saves a copy on fast cards and
    /// costs a second notice for each block. `auto` stops when the kernel copies all the same;
    /// `off` is for a card whose driver does this badly. With io_uring only
    #[arg(long, value_enum, value_name = "WHEN", default_value = "auto")]
    zero_copy_send: When,
    #[command(flatten)]
    spool: SpoolFlags,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Io {
    Auto,
    Uring,
    Threads,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum LaneFlag {
    Auto,
    Block,
    Splice,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ChecksumFlag {
    Crc32,
    None,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum When {
    Auto,
    On,
    Off,
}

/// Beyond these, a connection would have to be a fifteenth of all to make a difference.
const AUTO_CONNECTIONS_MAX: u16 = 16;

impl Flags {
    /// The settings of a receiving engine, and of a sending one but for [`SendFlags`]. Says once
    /// where `io_uring` cannot be had. `here` is the side that asks.
    pub fn settings(&self, here: Side) -> Result<Settings, Failure> {
        let route = match self.lane {
            LaneFlag::Auto => RouteChoice::Auto,
            LaneFlag::Block => RouteChoice::Only(Route::Block),
            LaneFlag::Splice => RouteChoice::Only(Route::Splice),
        };
        Ok(Settings { route, ..self.machine.settings_on(&self.pin, here)? })
    }

    /// What the other end is told of its own: it has a cache of the same size.
    pub fn for_far(&self, far: &FarEngine) -> Vec<String> {
        let mut words = vec![format!("--cache={}", self.machine.cache.0)];
        words.extend(far.far_io.as_ref().map(|io| format!("--io={}", typed(io))));
        words.extend(far.far_workers.map(|count| format!("--workers={count}")));
        words
    }
}

impl FarEngine {
    /// Whether anything was said of it.
    pub fn is_given(&self) -> bool {
        self.far_io.is_some() || self.far_workers.is_some()
    }
}

impl MachineFlags {
    /// As [`Flags::settings`].
    pub fn settings(&self, here: Side) -> Result<Settings, Failure> {
        self.settings_on(&Pin::Auto, here)
    }

    fn settings_on(&self, pin: &Pin, here: Side) -> Result<Settings, Failure> {
        let allowed = sys::cpu::allowed()
            .map_err(|error| machine(here, "ask which cores we may use", &error))?;
        let cores = match pin {
            Pin::Auto => allowed.clone(),
            Pin::Off => Vec::new(),
            Pin::Cores(cores) => match cores.iter().find(|core| !allowed.contains(core)) {
                Some(core) => {
                    let may = sys::cpu::ranges(&allowed);
                    return Err(usage(here, format!("--pin names core {core}; we may use {may}")));
                }
                None => cores.clone(),
            },
        };
        Ok(Settings {
            backend: self.backend(here)?,
            cache: self.cache,
            block_bytes: Bytes::MIB,
            workers: self.workers.map_or(allowed.len(), usize::from),
            cores,
            compression: Compression::None,
            checksum: Checksum::Crc32,
            route: RouteChoice::Auto,
            flush_after: Duration::from_millis(100),
            zero_copy: ZeroCopy::Off,
            spool: None,
        })
    }

    fn backend(&self, here: Side) -> Result<Backend, Failure> {
        let choice = match self.io {
            Io::Auto => Choice::Auto,
            Io::Uring => Choice::Uring,
            Io::Threads => Choice::Threads,
        };
        let resolved = choice.resolve().map_err(|why| {
            Failure::new(here, Class::Machine, format!("io_uring cannot be used: {why}"))
                .with_remedy("use --io threads, or see `zferry doctor`")
        })?;
        if let Some(why) = resolved.fell_back {
            tracing::warn!("io_uring cannot be used ({why}); going on with plain system calls");
        }
        Ok(resolved.backend)
    }
}

impl SendFlags {
    /// The settings of a sending engine, out of those of a receiving one.
    pub fn apply(&self, settings: Settings) -> Result<Settings, Failure> {
        let spool = self.spool.place()?;
        let settings = Settings { spool, ..self.check(settings)? };
        check_lane(&settings)?;
        Ok(settings)
    }

    /// The same without breakpoint files: for one that sends on another host, or to see that there
    /// could be such an engine.
    pub fn check(&self, settings: Settings) -> Result<Settings, Failure> {
        let compression = self.compress.0;
        let size = self.block_size.unwrap_or(self.checksum.block_bytes());
        let whole_pages = size.as_usize().is_multiple_of(PAGE_BYTES);
        if !(BLOCK_BYTES_MIN..=BLOCK_BYTES_MAX).contains(&size) || !whole_pages {
            return Err(usage(
                Side::Source,
                format!(
                    "--block-size {size} is not a multiple of 4 KiB from {BLOCK_BYTES_MIN} to \
                 {BLOCK_BYTES_MAX}"
                ),
            ));
        }
        let settings = Settings {
            block_bytes: size,
            compression,
            checksum: match self.checksum {
                ChecksumFlag::Crc32 => Checksum::Crc32,
                ChecksumFlag::None => Checksum::None,
            },
            flush_after: Duration::from_millis(self.flush_after),
            zero_copy: match self.zero_copy_send {
                When::Auto => ZeroCopy::Auto,
                When::On => ZeroCopy::On,
                When::Off => ZeroCopy::Off,
            },
            ..settings
        };
        let codec = settings.codec();
        settings.slots(usize::from(self.connections.least()), codec, Side::Source)?;
        check_lane(&settings)?;
        Ok(settings)
    }

    /// The same flags as words, for an engine on another host.
    pub fn for_far(&self) -> Result<Vec<String>, Failure> {
        let SendFlags { compress, checksum, connections, block_size, flush_after, .. } = self;
        let SendFlags { congestion, bwlimit, zero_copy_send, spool, .. } = self;
        let mut words = vec![
            format!("--compress={compress}"),
            format!("--checksum={}", typed(checksum)),
            format!("--connections={connections}"),
            format!("--flush-after={flush_after}"),
            format!("--zero-copy-send={}", typed(zero_copy_send)),
        ];
        words.extend(block_size.map(|size| format!("--block-size={}", size.0)));
        words.extend(congestion.as_ref().map(|name| format!("--congestion={name}")));
        words.extend(bwlimit.as_ref().map(Bwlimit::for_far).transpose()?);
        words.extend(spool.for_far()?);
        Ok(words)
    }

    /// How many data connections an engine of such settings is to have.
    pub fn connections(&self, settings: &Settings) -> Connections {
        match self.connections {
            Stripes::Fixed(count) => Connections::Fixed(count),
            Stripes::Auto => {
                let codec = settings.codec();
                let fits =
                    |&count: &u16| settings.slots(usize::from(count), codec, Side::Source).is_ok();
                Connections::UpTo((1..=AUTO_CONNECTIONS_MAX).rev().find(fits).unwrap_or(1))
            }
        }
    }

    /// Whether they may not send as fast as they can.
    pub fn is_limited(&self) -> bool {
        self.bwlimit.is_some()
    }

    /// How fast they may send together.
    pub fn limit(&self) -> Result<Limit, Failure> {
        Limit::begin(self.bwlimit.as_ref())
    }

    /// Their congestion control; `None` for the machine's own.
    pub fn congestion(&self) -> Option<String> {
        self.congestion.clone()
    }
}

impl ChecksumFlag {
    /// The size of blocks that nobody has asked for otherwise. Of those that nobody looks at, the
    /// pages fit a pipe of 1 MiB even in pieces of 1448 bytes, and that is the largest pipe an
    /// unprivileged user gets. Larger ones cost no less there; all others are cheapest at 1 MiB.
    fn block_bytes(self) -> Bytes {
        match self {
            ChecksumFlag::Crc32 => Bytes::MIB,
            ChecksumFlag::None => Bytes(256 << 10),
        }
    }
}

/// Whether the bytes of blocks are looked at only where that is wished.
fn check_lane(settings: &Settings) -> Result<(), Failure> {
    let refuse = |what: &str, remedy: &str| Err(usage(Side::Source, what).with_remedy(remedy));
    let spliced = settings.route == RouteChoice::Only(Route::Splice);
    match (settings.checksum, settings.compression) {
        (Checksum::Crc32, _) if spliced => refuse(
            "--lane splice never looks at a byte, but blocks are to have a checksum",
            "add --checksum none, or leave --lane splice out",
        ),
        (Checksum::None, Compression::Zstd { .. } | Compression::Auto) => refuse(
            "--checksum none is for blocks that are sent as they are, not for packed ones",
            "use --compress none, or leave --checksum none out",
        ),
        (Checksum::None, Compression::None) if settings.spool.is_some() => refuse(
            "--checksum none is not for blocks that go to breakpoint files: a disk may change them",
            "leave --spool or --checksum none out",
        ),
        _ => Ok(()),
    }
}
