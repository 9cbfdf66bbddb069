//! What the two hosts say to each other: bytes in, bytes and effects out.
//!
//! Pure: no socket, clock or thread. The engine and the simulator drive the same code, so whatever
//! the simulator found to be safe is safe in the engine too. Every byte that comes in here was
//! chosen by somebody else; none of it may reach an index, an allocation or a subtraction before
//! it was checked.
//!
//! A client opens a control connection with a [`preamble`] and a `Hello`; from there the machines
//! talk in [`message`]s, [`sender`] at the client, [`receiver`] at the server. Blocks travel on
//! data connections, each behind a [`frame`] header, as many at once as the two [`window`]s allow:
//!
//! ```text
//! client   Preamble Hello          List            Open         (frames) End         Bye
//! server                  Welcome       Listed...       Opened       Ack...   Result
//! ```
//!
//! `ListTree` asks for a dataset and all below it: the answer is dealt out in pages (`tree`), as
//! far as the client lets them come (`ListOn`).
//!
//! Either may say `Refused` before it hangs up. A session outlives its connections: [`journal`]
//! remembers what was said, so that the machines never notice that a control connection was lost
//! and another took its place, with `Return` and `Returned`. Where the process behind one end died
//! and another has taken over, the server says where it stands ([`standing`]).

pub mod envelope;
pub mod frame;
pub mod journal;
pub mod liveness;
pub mod message;
pub mod misbehaved;
pub mod negotiate;
pub mod piece;
pub mod preamble;
pub mod prune;
pub mod receiver;
pub mod relative;
pub mod secret;
pub mod sender;
pub mod stall;
pub mod standing;
pub mod version;
pub mod watermarks;
pub mod window;

mod listing;
mod stranger;
pub mod text;
pub mod ticket;
mod tree;
