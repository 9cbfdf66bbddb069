//! The stages that move a stream, each on threads of its own, and the two ways they are joined.
//!
//! ```text
//! sender    source ──> read ──> compress ──> send ──N sockets──>
//! receiver  ──N sockets──> receive ──> decompress ──> splice ──> sink
//! ```
//!
//! Stages are driven by messages and know nothing of each other; [`sender`] and [`receiver`] join
//! them. A block takes all the slots that it will ever need where it enters, so no stage waits for
//! room while it holds some. Nothing goes back but empty slots and credits, which whoever started
//! the engines carries from the receiver to the sender. Connections come and go by their lanes: a
//! loss is told, and what was on its way goes over the others. The engine knows nothing of `zfs`:
//! a source and a sink are descriptors.

pub mod block;
pub mod fault;
pub mod halt;
pub mod progress;
mod reached;
pub mod receiver;
pub mod sender;
pub mod settings;
mod stage;
