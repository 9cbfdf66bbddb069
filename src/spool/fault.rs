//! Points in the keeping of records where a test may have the process die, as by `kill -9`.
//!
//! Only in builds with debug assertions; a release has none of it.

use std::sync::atomic::{AtomicU32, Ordering};

/// The variable that names a point, or a point and at which time it is fatal: `record-due:3`.
pub const VARIABLE: &str = "ZFERRY_DIE_AT";

/// All points of every transfer, in the order in which it comes by them.
pub const POINTS: [&str; 7] = [
    "file-made",
    "names-written",
    "record-due",
    "record-written",
    "opened",
    "file-removed",
    "names-removed",
];

/// Those that only a stream comes by which is kept in breakpoint files.
pub const STREAM_POINTS: [&str; 2] = ["segment-due", "segment-durable"];

/// How often the fatal point was passed.
static PASSED: AtomicU32 = AtomicU32::new(0);

/// Dies here, if that was asked for.
pub(super) fn reach(point: &'static str) {
    if cfg!(debug_assertions) {
        let listed = POINTS.contains(&point) || STREAM_POINTS.contains(&point);
        debug_assert!(listed, "{point} is not in the list");
        let Ok(order) = std::env::var(VARIABLE) else { return };
        let (named, time) = order.split_once(':').unwrap_or((&order, "1"));
        if named == point && PASSED.fetch_add(1, Ordering::Relaxed) + 1 == time.parse().unwrap_or(1)
        {
            std::process::abort();
        }
    }
}
