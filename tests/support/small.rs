//! Settings of a side that is small, for those who drive the library and not the program.

use std::num::NonZeroU16;
use std::time::Duration;

use sys::backend::Backend;
use tokio::sync::watch;
use zferry::client::{Connections, Options};
use zferry::engine::settings::{Checksum, Compression, RouteChoice, Settings, ZeroCopy};
use zferry::units::Bytes;

/// An engine by plain system calls, with room for a few MiB.
pub fn engine() -> Settings {
    Settings {
        backend: Backend::Threads,
        cache: Bytes(8 << 20),
        block_bytes: Bytes(64 << 10),
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

/// A client with it, which tries again for so long.
pub fn client(retry_for: Duration) -> Options {
    Options {
        engine: engine(),
        connections: Connections::Fixed(1),
        congestion: None,
        limit: watch::channel(None).1,
        sharers: NonZeroU16::MIN,
        retry_for,
        stall_timeout: Duration::from_secs(60),
        records: None,
    }
}
